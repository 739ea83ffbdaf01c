import xml.etree.ElementTree as ET

import pytest

from pipeline.viewer.charts import draw_histogram, draw_lines, nice_top, short


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (950, "950"), (1234, "1.23k"), (34e6, "34M"), (2e12, "2T")])
def test_numbers_are_short(value, text):
    assert short(value) == text


@pytest.mark.parametrize(("largest", "top"), [(0, 1), (1, 1), (1.2, 2), (3, 5), (7, 10), (0.03, 0.05)])
def test_an_axis_ends_at_a_number_that_is_easy_to_read(largest, top):
    assert nice_top(largest) == pytest.approx(top)


def test_lines_stay_inside_the_frame_and_names_are_escaped():
    chart = draw_lines({"a<b": [(0, 0), (10, 5)], "c": [(0, 2), (10, 99)]}, x_label="s", y_label="n", y_top=10)
    root = ET.fromstring(chart.replace("–", "-"))  # noqa: S314, our own text
    lines = [node.attrib["points"] for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 2
    assert all(12 <= float(point.split(",")[1]) <= 206 for line in lines for point in line.split())
    assert "a&lt;b" in chart


def test_bars_stand_on_each_other_and_empty_bins_have_none():
    chart = draw_histogram({"mito": [2, 0, 1], "glia": [1, 0, 3]}, [1, 10, 100, 1000], x_label="um", y_label="n")
    bars = [node.attrib for node in ET.fromstring(chart).iter() if node.tag.endswith("rect")]  # noqa: S314
    assert len(bars) == 4
    lower, upper = bars[:2]
    assert float(upper["y"]) + float(upper["height"]) == pytest.approx(float(lower["y"]), abs=0.2)


def test_a_line_of_one_point_is_no_chart():
    assert draw_lines({"a": [(0, 1)]}, x_label="s", y_label="n") == ""
