import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OurError
from pipeline.geometry import BlockGrid, Box, nests

domains = st.builds(
    lambda start, shape: Box.of_shape(shape, start),
    st.tuples(*[st.integers(-5, 5)] * 3),
    st.tuples(*[st.integers(1, 13)] * 3),
)
cores = st.tuples(*[st.integers(1, 7)] * 3)


@given(domains, cores)
def test_every_voxel_lies_in_exactly_one_core(domain, core):
    grid = BlockGrid(domain, core)
    count = np.zeros(domain.shape, int)
    for index in range(len(grid)):
        count[grid.box(index).relative_to(domain.start).slices] += 1
    assert (count == 1).all()


@given(domains, cores)
def test_index_and_position_are_inverse(domain, core):
    grid = BlockGrid(domain, core)
    positions = [grid.position(index) for index in range(len(grid))]
    assert positions == list(itertools.product(*[range(n) for n in grid.shape]))
    assert [grid.index(position) for position in positions] == list(range(len(grid)))


@given(domains, cores, domains)
def test_touched_blocks_are_those_that_share_a_voxel(domain, core, box):
    grid = BlockGrid(domain, core)
    expected = [i for i in range(len(grid)) if not grid.box(i).intersection(box).is_empty]
    assert list(grid.touched_by(box)) == expected


def test_neighbors_share_a_face():
    grid = BlockGrid(Box.of_shape((5, 7, 11)), (2, 3, 5))
    assert grid.shape == (3, 3, 3)
    assert grid.upper_neighbor(0, 0) == 9
    assert grid.upper_neighbor(0, 1) == 3
    assert grid.upper_neighbor(0, 2) == 1
    assert grid.upper_neighbor(26, 0) is None
    assert grid.box(26) == Box((4, 6, 10), (5, 7, 11))


def test_a_petavoxel_grid_costs_nothing():
    grid = BlockGrid(Box.of_shape((100_000, 100_000, 100_000)), (64, 1024, 1024))
    assert len(grid) == 1563 * 98 * 98
    last = len(grid) - 1
    assert grid.index(grid.position(last)) == last
    assert grid.box(last).stop == (100_000, 100_000, 100_000)


def test_bad_index_and_core_are_our_errors():
    grid = BlockGrid(Box.of_shape((2, 2, 2)), (2, 2, 2))
    with pytest.raises(OurError, match="outside a grid of 1"):
        grid.position(1)
    with pytest.raises(OurError, match="must be positive"):
        BlockGrid(Box.of_shape((2, 2, 2)), (0, 1, 1))


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ((64, 64, 64), (32, 64, 128), True),
        ((64, 64, 64), (48, 64, 64), False),
        ((6, 10, 14), (2, 5, 7), True),
    ],
)
def test_nests(outer, inner, expected):
    assert nests(outer, inner) is expected
    assert nests(inner, outer) is expected
