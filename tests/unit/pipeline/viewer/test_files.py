from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.viewer.files import RangeNotSatisfiable, find_file, is_plain, parse_range


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = (tmp_path / "volume").resolve()
    (folder / "0" / "c").mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    (folder / "0" / "c" / "1").write_bytes(b"chunk")
    (tmp_path / "secret").write_text("secret")
    return folder


def test_a_file_below_the_root_is_found(root: Path) -> None:
    found = find_file(root, "0/c/1")
    assert found is not None
    assert (found.path, found.size_bytes, found.encoding) == (root / "0" / "c" / "1", 5, None)


@pytest.mark.parametrize(("suffix", "encoding"), [(".gz", "gzip"), (".br", "br")])
def test_a_compressed_chunk_answers_for_its_plain_name(root: Path, suffix: str, encoding: str) -> None:
    (root / f"0-13{suffix}").write_bytes(b"packed")
    found = find_file(root, "0-13")
    assert found is not None
    assert (found.size_bytes, found.encoding) == (6, encoding)


def test_the_plain_file_goes_before_the_compressed_one(root: Path) -> None:
    (root / "zarr.json.gz").write_bytes(b"packed")
    found = find_file(root, "zarr.json")
    assert found is not None
    assert found.encoding is None


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "0/../../secret",
        "..",
        ".",
        "",
        "/",
        "/etc/passwd",
        "0//c/1",
        "./zarr.json",
        "zarr.json/",
        "..\\secret",
        "zarr.json\0",
        "zarr.json\0.gz",
        "x" * 5000,
    ],
)
def test_no_path_leads_out_or_around(root: Path, path: str) -> None:
    assert find_file(root, path) is None


@pytest.mark.parametrize("path", ["..", "a/../b", "a//b", "/a", "a/", "a\\b", "a\0"])
def test_only_children_are_plain(path: str) -> None:
    assert not is_plain(path)
    assert is_plain("a/..b/c...")


def test_a_link_to_a_file_outside_is_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "link").symlink_to(tmp_path / "secret")
    assert find_file(root, "link") is None


def test_a_compressed_link_to_a_file_outside_is_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "link.gz").symlink_to(tmp_path / "secret")
    assert find_file(root, "link") is None


def test_a_link_to_a_folder_outside_is_not_followed(root: Path, tmp_path: Path) -> None:
    (root / "folder").symlink_to(tmp_path)
    assert find_file(root, "folder/secret") is None


def test_a_folder_whose_name_begins_like_the_root_is_outside(root: Path, tmp_path: Path) -> None:
    (tmp_path / "volume-2").mkdir()
    (tmp_path / "volume-2" / "secret").write_text("secret")
    (root / "sibling").symlink_to(tmp_path / "volume-2")
    assert find_file(root, "sibling/secret") is None


def test_a_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "again").symlink_to(root / "0")
    assert find_file(root, "again/c/1") is not None


def test_links_in_a_circle_and_folders_are_no_files(root: Path) -> None:
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    assert find_file(root, "a") is None
    assert find_file(root, "0/c") is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=3-6", (3, 7)),
        ("bytes=3-", (3, 11)),
        ("bytes=3-99", (3, 11)),
        ("bytes=-4", (7, 11)),
        ("bytes=-99", (0, 11)),
        (None, None),
        ("bytes=-", None),
        ("bytes=5-2", None),
        ("bytes=0-1,4-5", None),
        ("lines=0-1", None),
        ("bytes=a-b", None),
        ("bytes=\u0663-", None),
    ],
)
def test_ranges(header: str | None, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 11) == expected


@pytest.mark.parametrize("header", ["bytes=11-", "bytes=11-12", "bytes=-0"])
def test_a_range_without_a_byte_is_refused(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range(header, 11)
