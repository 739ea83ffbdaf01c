import numpy as np
import pytest

from pipeline.geometry import Box
from pipeline.phantom.anatomy import grow_tissue
from pipeline.phantom.field import WARP_LIMIT_NM, divide, frame_shape, make_tile, mito_depth
from pipeline.phantom.spec import PhantomSpec

SPEC = PhantomSpec(seed=7, voxel_size_zyx_nm=(9.0, 8.0, 7.0))
FRAME = Box.of_shape((16, 32, 32), (32, 64, 96))


@pytest.fixture(scope="module")
def curves():
    size = np.array(SPEC.voxel_size_zyx_nm)
    low, high = np.array(FRAME.start) * size - WARP_LIMIT_NM, np.array(FRAME.stop) * size + WARP_LIMIT_NM
    return grow_tissue(SPEC.seed, low, high)


@pytest.mark.parametrize("part", [Box((33, 70, 97), (40, 96, 111)), Box((47, 64, 127), (48, 65, 128))], ids=str)
def test_a_cut_tile_computes_the_same_bits(curves, part):
    whole, cut = make_tile(SPEC, FRAME, FRAME), make_tile(SPEC, FRAME, part)
    where = part.relative_to(FRAME.start).slices
    for first, second in zip(whole.tissue_nm, cut.tissue_nm, strict=True):
        assert np.array_equal(first[where], second)
    flat = np.zeros(FRAME.shape, np.float32)
    one, two = divide(whole, curves, flat), divide(cut, curves, flat[where])
    for name in ("owner", "second", "border_nm", "axis_nm"):
        assert np.array_equal(getattr(one, name)[where], getattr(two, name)), name


def test_owners_equal_a_plain_search_over_all_curves(curves):
    tile = make_tile(SPEC, FRAME, FRAME)
    territory = divide(tile, curves, np.zeros(FRAME.shape, np.float32))
    start = curves.points_nm[:, :-1] - tile.center_nm
    axis = curves.points_nm[:, 1:] - curves.points_nm[:, :-1]
    rng = np.random.default_rng(0)
    for index in rng.integers(0, FRAME.shape, (97, 3)):
        point = np.array([u[tuple(index)] for u in tile.tissue_nm], np.float64)
        along = np.clip(((point - start) * axis).sum(-1) / (axis**2).sum(-1), 0.0, 1.0)
        value = np.linalg.norm(point - start - axis * along[..., None], axis=-1) - curves.weight_nm
        per_curve = value.min(axis=1)
        order = np.argsort(per_curve)
        gap = per_curve[order[1]] - per_curve[order[0]]
        assert territory.border_nm[tuple(index)] == pytest.approx(gap / 2, abs=0.01)
        if gap > 0.1:
            assert territory.owner[tuple(index)] == order[0]


def test_the_warp_stays_within_its_limit():
    tile = make_tile(SPEC, FRAME, FRAME)
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = -1
        straight = (tile.positions_nm[axis] - tile.center_nm[axis]).reshape(shape)
        assert 0.0 < np.abs(tile.tissue_nm[axis] - straight).max() < WARP_LIMIT_NM


def test_mitochondria_need_radius_and_room():
    border = np.array([100.0, 5.0, 100.0], np.float32)
    axis = np.array([-50.0, -50.0, 30.0], np.float32)
    assert (mito_depth(border, axis) < 0).tolist() == [True, False, False]


def test_frames_are_powers_of_two():
    assert frame_shape(PhantomSpec()) == (32, 32, 32)
    assert frame_shape(PhantomSpec(voxel_size_zyx_nm=(50.0, 4.0, 4.0))) == (4, 32, 32)
