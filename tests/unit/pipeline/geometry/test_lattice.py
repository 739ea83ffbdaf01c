import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Box, covering_box, covering_shape, ratio_between, source_box
from pipeline.geometry.lattice import snapped_ceil, snapped_floor


def test_ratio_of_spacings():
    assert ratio_between((5.0, 5.0, 5.0), (8.0, 10.0, 2.5)) == (1.6, 2.0, 0.5)


@pytest.mark.parametrize(("extent", "ratio", "expected"), [(165, 1.6, 104), (160, 1.6, 100), (7, 2.0, 4), (7, 0.5, 14)])
def test_covering_shape_rounds_up_once(extent, ratio, expected):
    assert covering_shape((extent,) * 3, (ratio,) * 3) == (expected,) * 3


def test_a_border_that_is_not_exact_in_binary_is_still_a_border():
    assert snapped_ceil(3 * 0.1 / 0.1) == 3
    assert snapped_floor(0.3 / 0.1) == 3
    assert snapped_floor(2.5) == 2
    assert snapped_ceil(2.5) == 3


def test_covering_box_rounds_outwards_on_both_sides():
    assert covering_box(Box((-1, 3, 8), (5, 8, 16)), (1.6, 1.6, 1.6)) == Box((-1, 1, 5), (4, 5, 10))


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (2.0, (4, 10)),  # means of pairs
        (1.0, (2, 5)),  # the voxels themselves
        (0.5, (0, 3)),  # centers 0.75, 1.25, 1.75 between voxels 0 and 2
        (1.6, (3, 8)),  # 3.2 .. 8.0
    ],
)
def test_source_of_targets_2_to_5(ratio, expected):
    bounds = Box((-100,) * 3, (100,) * 3)
    found = source_box(Box((2, 2, 2), (5, 5, 5)), (ratio,) * 3, bounds)
    assert (found.start[0], found.stop[0]) == expected


@given(st.integers(-30, 30), st.integers(1, 20), st.sampled_from([0.25, 0.625, 1.0, 1.6, 2.0, 3.3]))
def test_source_stays_inside_bounds_and_is_never_empty(start, extent, ratio):
    bounds = Box((-4, 0, 2), (9, 5, 3))
    found = source_box(Box((start,) * 3, (start + extent,) * 3), (ratio,) * 3, bounds)
    assert bounds.contains(found)
    assert not found.is_empty
