import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OurError
from pipeline.geometry import Box, ceil_div

vectors = st.tuples(*[st.integers(-20, 20)] * 3)
extents = st.tuples(*[st.integers(0, 20)] * 3)
boxes = st.builds(lambda start, shape: Box.of_shape(shape, start), vectors, extents)


def voxels(box):
    return {
        (z, y, x)
        for z in range(box.start[0], box.stop[0])
        for y in range(box.start[1], box.stop[1])
        for x in range(box.start[2], box.stop[2])
    }


@given(a=st.integers(-100, 100), b=st.integers(1, 20))
def test_ceil_div_rounds_up(a, b):
    assert (ceil_div(a, b) - 1) * b < a <= ceil_div(a, b) * b


small = st.builds(
    lambda start, shape: Box.of_shape(shape, start),
    st.tuples(*[st.integers(-3, 3)] * 3),
    st.tuples(*[st.integers(0, 4)] * 3),
)


@given(small, small)
def test_intersection_is_the_common_voxels(a, b):
    assert voxels(a.intersection(b)) == voxels(a) & voxels(b)


@given(small, small)
def test_contains_agrees_with_the_voxel_sets(a, b):
    assert a.contains(b) == (voxels(b) <= voxels(a))


@given(small, small)
def test_union_holds_both(a, b):
    assert a.union(b).contains(a)
    assert a.union(b).contains(b)


@given(boxes, vectors)
def test_relative_undoes_shift(box, offset):
    assert box.shifted(offset).relative_to(offset) == box


@given(boxes)
def test_grown_adds_both_sides(box):
    grown = box.grown((1, 2, 3))
    assert grown.shape == tuple(a + b for a, b in zip(box.shape, (2, 4, 6), strict=True))
    assert grown.contains(box)


def test_box_of_an_array():
    box = Box((2, 3, 5), (7, 11, 13))
    assert box.shape == (5, 8, 8)
    assert box.num_voxels == 320
    assert box.slices == (slice(2, 7), slice(3, 11), slice(5, 13))
    assert str(box) == "2:7,3:11,5:13"


def test_negative_extent_is_our_error():
    with pytest.raises(OurError, match="negative extent"):
        Box((0, 0, 0), (1, -1, 1))


def test_slabs_follow_each_other_and_cover_the_box():
    box = Box((-3, 2, 5), (8, 9, 6))
    slabs = list(box.slabs(4))
    assert slabs == [Box((first, 2, 5), (last, 9, 6)) for first, last in ((-3, 1), (1, 5), (5, 8))]
    assert not list(Box((2, 0, 0), (2, 5, 5)).slabs(4))
