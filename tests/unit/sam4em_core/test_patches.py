import itertools

import pytest

from sam4em_core.config import UnetConfig
from sam4em_core.patches import patch_bytes, patch_grid

UNET = UnetConfig(widths=(8, 8, 8, 8), patch_zyx=(16, 24, 24), overlap_zyx=(4, 5, 6))
BOUNDS = ((-3, -17, -5), (61, 79, 103))


@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (1, 3, 2)])
def test_the_patches_that_touch_a_box_are_those_with_weight_on_what_it_reads(factors):
    grid = patch_grid(UNET, factors, BOUNDS)
    start, stop = (5, 3, 20), (18, 31, 47)
    spans = [grid.lattice_span(axis, start[axis], stop[axis]) for axis in range(3)]
    touching = set(grid.touching(start, stop))
    for patch in itertools.product(*(range(axis.count) for axis in grid.axes)):
        meets = all(
            axis.span(index)[0] < span[1] and axis.span(index)[1] > span[0]
            for axis, index, span in zip(grid.axes, patch, spans, strict=True)
        )
        assert meets == (patch in touching)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_the_lattice_around_a_box_is_as_small_as_interpolation_allows(factor):
    grid = patch_grid(UNET, (factor, factor, factor), BOUNDS)
    for start in range(-3, 40):
        for stop in (start + 1, start + 7):
            places = [(2 * (p + 3) + 1 - factor) / (2 * factor) for p in range(start, stop)]
            low, high = grid.lattice_span(0, start, stop)
            assert low == max(0, int(min(places) // 1))
            assert high >= min(grid.axes[0].extent, int(-(-max(places) // 1)) + 1)
            assert high - low <= (stop - start) / factor + 2


def test_the_context_stays_inside_the_bounds_and_holds_whole_patches():
    grid = patch_grid(UNET, (2, 2, 2), BOUNDS)
    low, high = grid.context((10, 10, 10), (11, 11, 11))
    assert all(a <= b for a, b in zip(BOUNDS[0], low, strict=True))
    assert all(a >= b for a, b in zip(BOUNDS[1], high, strict=True))
    whole = grid.context(*BOUNDS)
    assert whole == BOUNDS


def test_bytes_grow_with_the_patch_and_its_channels():
    grid = patch_grid(UNET, (2, 2, 2), BOUNDS)
    wide = UNET.model_copy(update={"widths": (16, 16, 16, 16)})
    assert patch_bytes(grid, wide) == 2 * patch_bytes(grid, UNET) > 4 * grid.patch_voxels
