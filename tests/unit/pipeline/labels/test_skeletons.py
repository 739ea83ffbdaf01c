"""Skeletons traced block by block: one tree per object, with its ends, its length and the same bytes again."""

import sys

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import BlockGrid, Box
from pipeline.labels.skeletons import cut_skeletons, join_skeletons, load_kimimaro, total_length_nm

SCALE, CONST_NM = 1.0, 100.0
SIZES = [(8.0, 8.0, 8.0), (30.0, 8.0, 8.0)]


def draw_tubes(shape, size_nm, axes_nm, radius_nm, segment=1):
    """Voxels whose centers lie within a radius of straight axes."""
    centers = (np.stack(np.indices(shape), axis=-1) + 0.5) * size_nm
    is_inside = np.zeros(shape, np.bool_)
    for start, stop in np.array(axes_nm, np.float64):
        along = np.clip((centers - start) @ (stop - start) / ((stop - start) @ (stop - start)), 0, 1)
        is_inside |= np.linalg.norm(centers - start - along[..., None] * (stop - start), axis=-1) < radius_nm
    return is_inside.astype(np.uint64) * np.uint64(segment)


def cut_volume(ids_zyx, core, size_nm, chosen=None):
    """Cut a volume block by block as the stage does; give the fragments by id."""
    grid, found = BlockGrid(Box.of_shape(ids_zyx.shape), core), {}
    for index in range(len(grid)):
        box = grid.box(index)
        whole = Box(box.start, tuple(stop + 1 for stop in box.stop)).intersection(grid.domain)
        fragments = cut_skeletons(ids_zyx[whole.slices], whole.start, size_nm, SCALE, CONST_NM, chosen)
        for row, number in enumerate(fragments.ids):
            found.setdefault(int(number), []).append(fragments.of(row))
    return found


def num_ends(skeleton):
    return int((np.bincount(skeleton.edges.reshape(-1)) == 1).sum())


def is_one_tree(skeleton):
    return len(skeleton.edges) == len(skeleton.vertices_zyx) - 1


@pytest.mark.parametrize("size_nm", SIZES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_straight_tube_crosses_a_border_as_one_path(size_nm, axis):
    shape, start, stop = [24, 40, 40], [0, 0, 0], [0, 0, 0]
    shape[axis] = 120
    for other in range(3):
        middle = shape[other] * size_nm[other] / 2
        start[other] = stop[other] = middle
    start[axis], stop[axis] = 100.0, shape[axis] * size_nm[axis] - 100.0
    ids = draw_tubes(shape, size_nm, [(start, stop)], 70.0, 2**63 + 5)
    core = [99, 99, 99]
    core[axis] = 50
    fragments = cut_volume(ids, tuple(core), size_nm)
    assert list(fragments) == [2**63 + 5]
    assert len(fragments[2**63 + 5]) == 3
    skeleton = join_skeletons(fragments[2**63 + 5], size_nm)
    assert is_one_tree(skeleton)
    assert num_ends(skeleton) == 2
    assert total_length_nm(skeleton, size_nm) == pytest.approx(stop[axis] - start[axis] + 140, rel=0.08)
    assert skeleton.radii_nm.max() == pytest.approx(70, abs=max(size_nm))


@pytest.mark.parametrize("size_nm", SIZES)
@pytest.mark.parametrize("core", [(13, 31, 37), (16, 48, 48), (99, 999, 999)])
def test_a_fork_over_many_blocks_has_three_ends(size_nm, core):
    shape = (round(1200 / size_nm[0]), 150, 150)
    middle, tips = np.array((560, 600, 620)), np.array(((200, 250, 300), (950, 300, 900), (500, 1000, 350)))
    ids = draw_tubes(shape, size_nm, [(middle, tip) for tip in tips], 90.0)
    skeleton = join_skeletons(cut_volume(ids, core, size_nm)[1], size_nm)
    assert is_one_tree(skeleton)
    assert num_ends(skeleton) == 3
    true_nm = np.linalg.norm(tips - middle, axis=1).sum() + 3 * 90
    assert total_length_nm(skeleton, size_nm) == pytest.approx(true_nm, rel=0.15)
    voxels = np.rint(skeleton.vertices_zyx).astype(int)
    assert ids[tuple(voxels.T)].all()


def test_a_tube_that_a_border_cuts_lengthwise_has_no_second_path():
    size_nm = (8.0, 8.0, 8.0)
    for shift in (-60, -20, 0, 20, 60):
        ids = draw_tubes((40, 64, 120), size_nm, [((160, 256 + shift, 100), (160, 256 + shift, 860))], 80.0)
        skeleton = join_skeletons(cut_volume(ids, (99, 32, 50), size_nm)[1], size_nm)
        assert is_one_tree(skeleton)
        assert num_ends(skeleton) == 2
        assert total_length_nm(skeleton, size_nm) == pytest.approx(760 + 160, rel=0.15)


def test_ticks_and_dust_are_removed_on_wish():
    size_nm = (8.0, 8.0, 8.0)
    axes = [((100, 100, 100), (100, 100, 900)), ((100, 100, 500), (100, 450, 500)), ((100, 600, 100), (100, 600, 300))]
    ids = draw_tubes((26, 90, 126), size_nm, axes, 50.0)
    fragments = cut_volume(ids, (99, 99, 99), size_nm)[1]
    whole = join_skeletons(fragments, size_nm)
    assert num_ends(whole) == 5
    assert num_ends(join_skeletons(fragments, size_nm, dust_nm=500.0)) == 3
    assert num_ends(join_skeletons(fragments, size_nm, tick_nm=600.0)) == 4
    assert len(join_skeletons(fragments, size_nm, dust_nm=1e6).vertices_zyx) == 0


def test_only_chosen_ids_are_traced_and_one_voxel_is_nothing():
    ids = draw_tubes((20, 20, 60), SIZES[0], [((80, 80, 80), (80, 80, 400))], 40.0, 3)
    ids[2, 2, 2] = 4
    ids[17:, 17:] = 5
    assert sorted(cut_volume(ids, (99, 99, 99), SIZES[0])) == [3, 5]
    assert sorted(cut_volume(ids, (99, 99, 99), SIZES[0], chosen=np.array([4, 5], np.uint64))) == [5]
    assert len(cut_skeletons(np.zeros((4, 4, 4), np.uint64), (0, 0, 0), SIZES[0], SCALE, CONST_NM).ids) == 0


def test_far_from_the_origin_nothing_is_lost():
    ids = draw_tubes((20, 20, 60), SIZES[1], [((300, 80, 80), (300, 80, 400))], 40.0)
    near = join_skeletons([cut_skeletons(ids, (0, 0, 0), SIZES[1], SCALE, CONST_NM).of(0)], SIZES[1])
    start = (1_000_000, 30_000_000, 20_000_000)
    far = join_skeletons([cut_skeletons(ids, start, SIZES[1], SCALE, CONST_NM).of(0)], SIZES[1])
    np.testing.assert_allclose(far.vertices_zyx - start, near.vertices_zyx, atol=1e-6)
    assert far.edges.tolist() == near.edges.tolist()


def test_the_same_block_gives_the_same_bytes_whatever_else_was_traced_before():
    ids = draw_tubes(
        (30, 40, 60), SIZES[1], [((200, 80, 80), (700, 250, 400)), ((400, 100, 400), (450, 160, 240))], 60.0
    )
    first = cut_skeletons(ids, (0, 0, 0), SIZES[1], SCALE, CONST_NM)
    noise = np.random.default_rng(1).integers(0, 3, (20, 20, 20)).astype(np.uint64)
    cut_volume(noise, (9, 9, 9), SIZES[0])
    again = cut_skeletons(ids, (0, 0, 0), SIZES[1], SCALE, CONST_NM)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    joined = [join_skeletons([found.of(0)], SIZES[1]) for found in (first, again)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*joined, strict=True))


def test_without_kimimaro_the_error_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "kimimaro", None)
    with pytest.raises(ConfigError, match=r"GPL-3\.0.*sam4em\[skeleton\]"):
        load_kimimaro()
