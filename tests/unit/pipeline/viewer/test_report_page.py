import re

from pipeline.viewer.report_page import Picture, ReportPage, Section, show, write_page


def make_page(**fields):
    values = {"title": "a<b>.zarr", "subtitle": "s", "states": [("complete", "good")], "tiles": {"objects": "3"}}
    return write_page(ReportPage(**{**values, "sections": [], "footer": "f", **fields}))


def test_the_page_asks_nobody_for_anything():
    section = Section(
        "P", pictures=[Picture("c", b"\x89PNG1"), Picture("d", b"\xff\xd8", is_wide=True)], charts=["<svg/>"]
    )
    page = make_page(sections=[section])
    addresses = re.findall(r'(?:src|href)="([^"]+)"|url\(([^)]+)\)', page)
    assert all(address[0].startswith("data:") for address in addresses)
    assert "data:image/png" in page
    assert "data:image/jpeg" in page
    assert "<script" not in page


def test_what_users_name_cannot_become_markup():
    evil = "<img src=x onerror=alert(1)>"
    sections = [
        Section(evil, evil, tiles={evil: evil}, rows=[{evil: evil}], pairs={evil: evil}, listing={evil: evil}),
        Section("p", pictures=[Picture('" onload="x', b"\xff\xd8")]),
    ]
    page = make_page(
        title=evil, subtitle=evil, states=[(evil, evil)], tiles={evil: evil}, sections=sections, footer=evil
    )
    assert "<img src=x" not in page
    assert '" onload="x' not in page


def test_values_for_people():
    assert [show(value) for value in (None, True, 1234567, 0.123456, (1, 2), "a&b")] == [
        "–", "yes", "1,234,567", "0.1235", "1, 2", "a&amp;b",
    ]  # fmt: skip
