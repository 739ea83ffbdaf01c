import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PlanError
from pipeline.geometry import BlockGrid, Box
from pipeline.run.blocks import (
    check_block,
    check_ids,
    common_unit,
    fitting_core,
    halved_to_fit,
    mip_factor,
    num_mips_of,
    sum_over_blocks,
)

grids = st.builds(
    lambda shape, core: BlockGrid(Box.of_shape(shape), core),
    st.tuples(*[st.integers(1, 23)] * 3),
    st.tuples(*[st.integers(2, 7)] * 3),
)


def voxels(core):
    return core[0] * core[1] * core[2]


def test_a_slab_takes_the_whole_plane_when_it_fits():
    core = fitting_core(Box.of_shape((500, 700, 900)), (16, 64, 64), voxels, 10**9, "label")
    assert core == (96, 704, 960)


def test_where_all_shapes_cost_the_same_the_widest_slab_is_taken():
    core = fitting_core(Box.of_shape((500, 700, 900)), (16, 64, 64), voxels, 704 * 960 * 40, "predict", lambda core: 7)
    assert core == (32, 704, 960)


def test_where_blocks_share_work_along_z_the_cheapest_that_fits_is_taken():
    domain, limit = Box.of_shape((2000, 700, 900)), 704 * 960 * 40

    def cost(core):
        # Every block does 100 slices more than its own, and 20 rows and columns.
        return sum_over_blocks(BlockGrid(domain, core), lambda box: voxels(box.grown((50, 10, 10)).shape))

    core = fitting_core(domain, (16, 64, 64), voxels, limit, "predict", cost)
    assert core == (256, 384, 256)
    assert cost(core) < 0.4 * cost((32, 704, 960))
    assert fitting_core(domain, (16, 64, 64), voxels, 10**9, "predict", cost)[0] == 256


def test_blocks_of_a_thin_volume_lie_side_by_side_where_they_share_work_along_z():
    domain = Box.of_shape((64, 700, 900))

    def cost(core):
        return sum_over_blocks(BlockGrid(domain, core), lambda box: voxels(box.grown((50, 10, 10)).shape))

    core = fitting_core(domain, (16, 64, 64), voxels, 10**9, "predict", cost)
    assert core[0] == 64
    assert len(BlockGrid(domain, core)) >= 4
    assert fitting_core(Box.of_shape((16, 64, 64)), (16, 64, 64), voxels, 10**9, "predict", cost) == (16, 64, 64)


def test_a_unit_that_does_not_fit_is_halved_along_its_longest_axis_down_to_a_chunk():
    assert halved_to_fit((64, 256, 256), (16, 32, 32), voxels, 64 * 256 * 64) == (64, 128, 128)
    assert halved_to_fit((64, 256, 256), (16, 32, 32), voxels, 10**9) == (64, 256, 256)
    assert halved_to_fit((64, 256, 256), (64, 128, 256), voxels, 1) == (64, 128, 256)


def test_less_memory_means_thinner_slabs_first():
    core = fitting_core(Box.of_shape((500, 700, 900)), (16, 64, 64), voxels, 704 * 960 * 40, "label")
    assert core == (32, 704, 960)


def test_then_the_longer_axis_is_halved():
    core = fitting_core(Box.of_shape((500, 700, 900)), (16, 64, 64), voxels, 704 * 512 * 16, "label")
    assert core == (16, 704, 512)


def test_a_unit_that_does_not_fit_is_refused_with_the_numbers():
    with pytest.raises(PlanError, match=r"65,536 bytes.*65,535"):
        fitting_core(Box.of_shape((500, 700, 900)), (16, 64, 64), voxels, 16 * 64 * 64 - 1, "label")


def test_a_small_volume_is_one_block():
    assert fitting_core(Box.of_shape((5, 7, 11)), (64, 64, 64), voxels, 10**9, "label") == (64, 64, 64)


def test_common_unit_holds_whole_units_of_every_output():
    assert common_unit([(64, 64, 64), (32, 128, 64)], "relabel") == (64, 128, 64)
    with pytest.raises(PlanError, match="do not nest"):
        common_unit([(64, 64, 64), (48, 64, 64)], "relabel")


def test_block_and_write_unit_must_nest():
    check_block((32, 256, 256), (64, 64, 64))
    with pytest.raises(PlanError, match=r"block \(40, 256, 256\)"):
        check_block((40, 256, 256), (64, 64, 64))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((5.0, 5.0, 5.0), (2, 2, 2)), ((50.0, 4.0, 4.0), (1, 2, 2)), ((50.0, 64.0, 64.0), (2, 2, 2))],
)
def test_levels_become_isotropic(size, expected):
    assert mip_factor(size) == expected


def test_levels_until_one_chunk_holds_a_slice():
    assert num_mips_of((165, 768, 1024), (64, 64, 64)) == 5
    assert num_mips_of((10, 60, 60), (64, 64, 64)) == 1
    assert num_mips_of((10, 10**6, 10**6), (64, 64, 64)) == 8


def test_ids_and_labels_must_fit_their_integers():
    check_ids((10**5, 10**5, 10**5), 3, (64, 1024, 1024), (24, 24, 24))
    with pytest.raises(PlanError, match=r"could hold .* objects, ids end at 18,446,744,073,709,551,615"):
        check_ids((2**22, 2**22, 2**20), 1, (64, 64, 64), (1, 1, 1))
    check_ids((2**22, 2**22, 2**19), 1, (64, 64, 64), (1, 1, 1))
    with pytest.raises(PlanError, match=r"make plan\.block_zyx smaller"):
        check_ids((10**4, 10**4, 10**4), 1, (1024, 2048, 2048), (1, 1, 1))


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
    assert len(asked) == 512
