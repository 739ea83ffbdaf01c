import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import BlockGrid, Box
from pipeline.run.estimate import sum_over_blocks

grids = st.builds(
    lambda shape, core: BlockGrid(Box.of_shape(shape), core),
    st.tuples(*[st.integers(1, 23)] * 3),
    st.tuples(*[st.integers(2, 7)] * 3),
)


@given(grids)
def test_counting_by_kinds_is_counting_all(grid):
    def figure(core):
        return core.grown((2, 3, 1)).intersection(grid.domain).num_voxels if min(grid.core) >= 3 else core.num_voxels

    assert sum_over_blocks(grid, figure) == sum(figure(grid.box(index)) for index in range(len(grid)))


def test_a_petavoxel_is_counted_at_once():
    grid = BlockGrid(Box.of_shape((100_003, 100_003, 100_003)), (64, 1024, 1024))
    asked = []

    def figure(core):
        asked.append(core)
        return core.num_voxels

    assert sum_over_blocks(grid, figure) == 100_003**3
    assert len(asked) == pytest.approx(125)
