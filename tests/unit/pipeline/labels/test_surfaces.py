"""Surfaces cut block by block: closed, right in size, the same whatever the blocks were read in."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pipeline.geometry import BlockGrid, Box
from pipeline.labels.surfaces import coarser, count_edge_uses, cut_fragments, join_fragments

SIZES = [(8.0, 8.0, 8.0), (30.0, 8.0, 8.0), (33.3, 4.7, 5.1)]


def cut_volume(ids_zyx, core, size_nm, error_nm):
    """Cut a volume block by block as the stage does; give the fragments by id."""
    grid = BlockGrid(Box.of_shape(ids_zyx.shape), core)
    padded = np.pad(ids_zyx, 1)
    found = {}
    for index in range(len(grid)):
        box = grid.box(index)
        start = tuple(first - (first == 0) for first in box.start)
        whole = Box(start, tuple(stop + 1 for stop in box.stop))
        fragments = cut_fragments(padded[whole.shifted((1, 1, 1)).slices], start, size_nm, error_nm)
        for row, number in enumerate(fragments.ids):
            found.setdefault(int(number), []).append(fragments.of(row))
    return found


def volume_inside(surface):
    """Volume in voxels; positive where triangles turn counterclockwise seen from outside, in zyx."""
    a, b, c = (surface.vertices_zyx[surface.triangles[:, corner]] for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def make_sphere():
    distance = np.sqrt(
        sum((axis - center) ** 2 for axis, center in zip(np.indices((61, 67, 71)), (30, 33, 35.3), strict=True))
    )
    return (distance < 25).astype(np.uint64) * np.uint64(2**40 + 7)


@pytest.mark.parametrize("size_nm", SIZES)
@pytest.mark.parametrize("error_nm", [4.0, 40.0])
def test_a_sphere_over_8_blocks_is_watertight(size_nm, error_nm):
    sphere = make_sphere()
    fragments = cut_volume(sphere, (32, 32, 32), size_nm, error_nm)
    assert len(fragments[2**40 + 7]) == 8
    surface = join_fragments(fragments[2**40 + 7])
    _, uses = count_edge_uses(surface.triangles)
    assert set(uses.tolist()) == {2}
    assert volume_inside(surface) == pytest.approx(np.count_nonzero(sphere), rel=0.02)
    whole = join_fragments(cut_volume(sphere, (99, 99, 99), size_nm, error_nm)[2**40 + 7])
    # The seams keep their vertices, the surface between them is as simple as without blocks.
    assert len(whole.triangles) < len(surface.triangles) < 2 * len(whole.triangles) + 800


@pytest.mark.parametrize("core", [(17, 19, 23), (61, 16, 71)])
def test_touching_objects_of_any_shape_are_watertight(core):
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(61, 67, 71)), 2)
    ids = np.where(np.abs(noise) > 0.02, (noise > 0) + 1, 0).astype(np.uint64)
    for fragments in cut_volume(ids, core, (30.0, 8.0, 8.0), 8.0).values():
        _, uses = count_edge_uses(join_fragments(fragments).triangles)
        assert set(uses.tolist()) == {2}


def test_an_object_at_the_border_of_the_volume_is_closed_there():
    surface = join_fragments(cut_volume(np.full((3, 4, 5), 9, np.uint64), (2, 2, 2), (8.0, 8.0, 8.0), 1.0)[9])
    assert set(count_edge_uses(surface.triangles)[1].tolist()) == {2}
    assert surface.vertices_zyx.min(axis=0).tolist() == [-0.5, -0.5, -0.5]
    assert surface.vertices_zyx.max(axis=0).tolist() == [2.5, 3.5, 4.5]


def test_an_error_bound_is_kept_and_more_error_means_fewer_triangles():
    sphere = make_sphere()
    fine, coarse = (
        join_fragments(cut_volume(sphere, (32, 32, 32), SIZES[0], error)[2**40 + 7]) for error in (4.0, 40.0)
    )
    assert len(coarse.triangles) < len(fine.triangles)
    for surface, error_voxels in ((fine, 0.5), (coarse, 5.0)):
        radius = np.linalg.norm(surface.vertices_zyx - np.array([30, 33, 35.3]), axis=1)
        assert np.abs(radius - 25).max() < 0.9 + error_voxels


def test_only_chosen_ids_are_cut():
    ids = np.zeros((9, 9, 9), np.uint64)
    ids[1:4], ids[5:8] = 3, 5
    fragments = cut_fragments(ids, (0, 0, 0), SIZES[0], 8.0, chosen=np.array([5], np.uint64))
    assert fragments.ids.tolist() == [5]
    assert len(cut_fragments(np.zeros((4, 4, 4), np.uint64), (0, 0, 0), SIZES[0], 8.0).ids) == 0


def test_far_from_the_origin_fragments_fit_as_well():
    start = (20_000_000, 30_000_000, 1_000_000)
    block = np.ones((4, 5, 5), np.uint64)
    lower = cut_fragments(np.pad(block, ((1, 0), (1, 1), (1, 1))), start, SIZES[2], 0.1)
    upper = cut_fragments(np.pad(block[:3], ((0, 1), (1, 1), (1, 1))), (start[0] + 4, *start[1:]), SIZES[2], 0.1)
    surface = join_fragments([lower.of(0), upper.of(0)])
    assert set(count_edge_uses(surface.triangles)[1].tolist()) == {2}


def test_the_same_block_gives_the_same_bytes_whatever_else_was_meshed_before():
    sphere = make_sphere()[:30]
    first = cut_fragments(sphere, (0, 0, 0), SIZES[0], 8.0)
    cut_fragments(np.random.default_rng(1).integers(0, 3, (20, 20, 20)).astype(np.uint64), (0, 0, 0), SIZES[0], 8.0)
    again = cut_fragments(sphere, (0, 0, 0), SIZES[0], 8.0)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))


def test_a_coarser_level_has_fewer_triangles_and_about_the_same_place():
    surface = join_fragments(cut_volume(make_sphere(), (32, 32, 32), SIZES[1], 4.0)[2**40 + 7])
    level = coarser(surface, SIZES[1], len(surface.triangles) // 4)
    assert len(level.triangles) <= len(surface.triangles) // 4 + 2
    assert np.abs(level.vertices_zyx.mean(axis=0) - surface.vertices_zyx.mean(axis=0)).max() < 2
