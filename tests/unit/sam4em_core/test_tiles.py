import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam4em_core import tiles
from sam4em_core.config import ModelConfig
from sam4em_core.errors import CoreConfigError
from sam4em_core.header import CheckpointHeader


def _header(**changes):
    values = {
        "model": ModelConfig(),
        "classes": ("mito",),
        "thresholds": (0.5,),
        "working_voxel_size_zyx_nm": (8, 8, 8),
        "accepted_voxel_size_nm": (4, 16),
        "window_slices": 7,
        "warm_up_slices": 3,
        "tile_side": 64,
        "tile_overlap": 13,
        "batch_tiles": 5,
    }
    return CheckpointHeader(**{**values, **changes})


@given(extent=st.integers(1, 700), overlap=st.integers(0, 32))
def test_weights_of_all_tiles_add_up_to_one(extent, overlap):
    grid = tiles.tile_axis(extent, _header(tile_overlap=overlap))
    total = np.zeros(extent + 64, dtype=np.float32)
    for tile in range(grid.count):
        weights = grid.ramp(tile)
        assert weights.min() > 0
        total[slice(*grid.span(tile))] += weights
    np.testing.assert_allclose(total[:extent], 1, rtol=0, atol=1e-6)


@given(extent=st.integers(1, 700), cut=st.tuples(st.integers(0, 699), st.integers(1, 700)))
def test_touching_tiles_are_exactly_those_that_overlap(extent, cut):
    start, stop = cut[0] % extent, min(extent, cut[0] % extent + cut[1])
    grid = tiles.tile_axis(extent, _header())
    spans = [grid.span(tile) for tile in range(grid.count)]
    overlapping = [tile for tile, (begin, end) in enumerate(spans) if begin < stop and start < end]
    assert list(grid.touching(start, stop)) == overlapping
    assert overlapping


@given(extent=st.integers(1, 5000), side=st.sampled_from([64, 256, 384]), overlap=st.integers(0, 32))
def test_tiles_are_as_few_and_as_small_as_cover_the_domain(extent, side, overlap):
    grid = tiles.tile_axis(extent, _header(tile_side=side, tile_overlap=overlap))
    assert grid.side <= side
    assert grid.side % 32 == 0
    assert grid.span(grid.count - 1)[1] >= extent
    smaller = grid.side - 32
    assert smaller <= overlap or smaller + (grid.count - 1) * (smaller - overlap) < extent
    assert grid.count == 1 or side + (grid.count - 2) * (side - overlap) < extent


def test_grids_by_hand():
    header = _header(tile_side=256, tile_overlap=32)
    grids = [tiles.tile_axis(extent, header) for extent in (1, 255, 257, 384, 480, 481)]
    assert [(grid.count, grid.side, grid.stride) for grid in grids] == [
        (1, 32, 32),
        (1, 256, 256),
        (2, 160, 128),
        (2, 224, 192),
        (2, 256, 224),
        (3, 192, 160),
    ]


def test_windows_start_at_the_origin_and_warm_up_inside_the_bounds():
    header = _header()
    assert list(tiles.windows_touching(6, 8, header)) == [0, 1]
    assert tiles.window_spans(0, 20, (0, 20), header) == ((0, 10), (0, 7))
    assert tiles.window_spans(0, 20, (-2, 20), header) == ((-2, 10), (0, 7))
    assert tiles.window_spans(1, 20, (0, 20), header) == ((4, 17), (7, 14))
    assert tiles.window_spans(2, 20, (0, 21), header) == ((11, 21), (14, 20))
    assert tiles.window_spans(2, 20, (0, 19), header) == ((11, 20), (14, 20))


def test_without_memory_no_warm_up():
    header = _header(model=ModelConfig(memory="none"))
    assert tiles.window_spans(1, 20, (0, 20), header) == ((7, 14), (7, 14))


def test_padding_reflects_inside_the_valid_part():
    assert tiles.reflected((-2, 5), (0, 4)).tolist() == [2, 1, 0, 1, 2, 3, 2]
    assert tiles.reflected((2, 9), (0, 4)).tolist() == [2, 3, 2, 3, 2, 3, 2]
    assert tiles.reflected((4, 7), (0, 4)).tolist() == [3, 3, 3]
    assert tiles.reflected((-3, -1), (0, 4)).tolist() == [0, 0]
    assert tiles.reflected((-3, 2), (-3, 4)).tolist() == [-3, -2, -1, 0, 1]


@given(
    core=st.tuples(*(st.tuples(st.integers(0, 40), st.integers(1, 60)) for _ in range(3))),
    margin=st.tuples(*(st.tuples(st.integers(-1, 90), st.integers(-1, 90)) for _ in range(3))),
)
def test_context_holds_all_that_is_read(core, margin):
    header, domain = _header(), (41, 97, 89)
    start = tuple(c[0] for c in core)
    stop = tuple(min(d, c[0] + c[1]) for c, d in zip(core, domain, strict=True))
    bounds = (tuple(-m[0] for m in margin), tuple(d + m[1] for d, m in zip(domain, margin, strict=True)))
    low, high = tiles.context_of(start, stop, bounds, domain, header)
    assert all(b <= a < c <= d for b, a, c, d in zip(bounds[0], low, high, bounds[1], strict=True))
    read = []
    for window in tiles.windows_touching(start[0], stop[0], header):
        span = tiles.window_spans(window, domain[0], (bounds[0][0], bounds[1][0]), header)[0]
        read.append(tiles.reflected(span, (bounds[0][0], bounds[1][0])))
    assert low[0] <= np.concatenate(read).min()
    assert np.concatenate(read).max() < high[0]
    for axis, grid in zip((1, 2), tiles.tile_axes(domain, header), strict=True):
        along = (bounds[0][axis], bounds[1][axis])
        touching = grid.touching(start[axis], stop[axis])
        positions = np.concatenate([tiles.reflected(grid.span(tile), along) for tile in touching])
        assert low[axis] <= positions.min()
        assert positions.max() < high[axis]


def test_batches_hold_every_tile_once_and_slots_never_change():
    slots = {}
    for tiles_y, tiles_x in ((range(4), range(7)), (range(1, 3), range(2, 6)), (range(3, 4), range(6, 7))):
        calls = tiles.batches_of(tiles_y, tiles_x, 7, 5)
        seen = [tile for call in calls for tile in call.values()]
        assert sorted(seen) == [(y, x) for y in tiles_y for x in tiles_x]
        for call in calls:
            for slot, tile in call.items():
                assert 0 <= slot < 5
                assert slots.setdefault(tile, slot) == slot
    assert len(tiles.batches_of(range(2), range(5), 5, 5)) == 2


@pytest.mark.parametrize("core", [((0, 0, 0), (0, 5, 5)), ((-1, 0, 0), (5, 5, 5)), ((0, 0, 0), (5, 98, 5))])
def test_cores_outside_the_domain_are_refused(core):
    with pytest.raises(CoreConfigError, match="inside the domain"):
        tiles.context_of(*core, ((0, 0, 0), (41, 97, 89)), (41, 97, 89), _header())


def test_model_voxels_by_hand():
    header = _header()
    # Two windows: reads 0..10 and 4..14 of a domain of 14 slices; 2 x 2 tiles of 64 x 64, all in one call.
    count = tiles.model_voxels((0, 0, 0), (14, 97, 97), ((0, 0, 0), (14, 97, 97)), (14, 97, 97), header)
    assert count == ((7 + 10) + (10 + 7)) * 4 * 64 * 64 // 2
    # A core inside one tile computes the call it is in, two tiles wide when two pass through the network together.
    count = tiles.model_voxels((0, 0, 0), (7, 20, 20), ((0, 0, 0), (14, 97, 97)), (14, 97, 97), header, batch=2)
    assert count == (7 + 10) * 2 * 64 * 64 // 2


@pytest.mark.parametrize(("plane", "limit"), [((384, 512), 1.4), ((1536, 2048), 1.6), ((3000, 700), 1.5)])
def test_default_grid_is_cheap_enough(plane, limit):
    """Model voxels over core voxels of whole windows; the first is the Lucchi++ volume at 10 nm."""
    header = _header(window_slices=20, warm_up_slices=4, tile_side=384, tile_overlap=32, batch_tiles=2)
    domain = (200, *plane)
    ratio = tiles.model_voxels((0, 0, 0), domain, ((0, 0, 0), domain), domain, header) / np.prod(domain, dtype=float)
    assert ratio < limit


def test_tiles_that_fit_a_large_slab_exactly_are_cheap_enough():
    """Without ragged ends: what overlap and warm-up alone cost."""
    header = _header(window_slices=20, warm_up_slices=4, tile_side=256, tile_overlap=32, batch_tiles=6)
    domain = (200, 224 * 6 + 32, 224 * 6 + 32)
    ratio = tiles.model_voxels((0, 0, 0), domain, ((0, 0, 0), domain), domain, header) / np.prod(domain, dtype=float)
    assert ratio < 1.5


def test_a_core_is_best_whole_windows_and_strides():
    header = _header()
    assert tiles.unit_of((14, 97, 60), header) == (7, 51, 60)
