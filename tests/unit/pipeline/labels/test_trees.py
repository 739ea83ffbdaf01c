"""Graphs over voxels become trees: merged, opened, pruned, smoothed."""

import numpy as np
import pytest

from pipeline.labels.trees import Graph, merge_graphs, prune_shadows, smoothed, spanning_tree

SIZE = np.array((30.0, 8.0, 8.0))


def path(voxels, radius=50.0, *, closed=False):
    """A graph along voxels, one after the other."""
    rows = np.arange(len(voxels) - 1)
    edges = np.stack([rows, rows + 1], axis=1)
    if closed:
        edges = np.concatenate([edges, [[len(voxels) - 1, 0]]])
    return Graph(np.array(voxels, np.int32), np.full(len(voxels), radius, np.float32), edges.astype(np.uint32))


def along_x(start, stop, z=0, y=0):
    return [(z, y, x) for x in range(start, stop)]


def degrees(graph):
    return np.bincount(graph.edges.reshape(-1), minlength=len(graph.vertices)).tolist()


def test_vertices_in_the_same_voxel_become_one_with_the_smaller_radius():
    merged = merge_graphs([path(along_x(0, 5), 50.0), path(along_x(4, 9), 30.0), path(along_x(3, 6), 80.0)])
    assert merged.vertices[:, 2].tolist() == list(range(9))
    assert merged.radii.tolist() == [50] * 4 + [30] * 5
    assert len(merged.edges) == 8
    assert degrees(merged).count(1) == 2


def test_the_order_of_the_blocks_changes_nothing():
    parts = [path(along_x(0, 5), 50.0), path(along_x(4, 9), 30.0), path([(0, 4, 4), (0, 3, 4), (0, 4, 4)])]
    first, second = merge_graphs(parts), merge_graphs(parts[::-1])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_a_loop_is_opened_and_only_once():
    ring = [(0, round(20 * np.sin(at)), round(20 * np.cos(at))) for at in np.linspace(0, 2 * np.pi, 60, endpoint=False)]
    tree = spanning_tree(merge_graphs([path(ring, closed=True)]), SIZE)
    assert len(tree.edges) == len(tree.vertices) - 1
    assert degrees(tree).count(1) == 2
    # Open, but whole: the two halves meet and none is in the shadow of the other.
    assert len(prune_shadows(tree, SIZE).edges) == len(tree.edges)


def test_a_loop_is_opened_where_the_object_is_thin():
    thick, thin = path([(0, 0, x) for x in range(20)], 90.0), path([(0, 5, x) for x in range(20)], 10.0)
    rungs = [path([(0, 0, x), (0, 5, x)], 90.0) for x in (0, 19)]
    tree = spanning_tree(merge_graphs([thick, thin, *rungs]), SIZE)
    kept = {tuple(sorted(map(tuple, tree.vertices[edge].tolist()))) for edge in tree.edges}
    assert all(((0, 0, x), (0, 0, x + 1)) in kept for x in range(19))


def test_parts_that_do_not_touch_stay_parts():
    tree = spanning_tree(merge_graphs([path(along_x(0, 5)), path(along_x(50, 55))]), SIZE)
    assert (len(tree.vertices), len(tree.edges)) == (10, 8)
    assert len(prune_shadows(tree, SIZE).edges) == 8


def test_a_branch_beside_a_thicker_one_goes_and_one_that_leaves_it_stays():
    trunk = path(along_x(0, 100), 80.0)
    shadow = path([(0, y, 50) for y in range(6)] + [(0, 6, x) for x in range(50, 90)], 20.0)
    leaving = path([(0, -y, 30) for y in range(40)], 20.0)
    pruned = prune_shadows(spanning_tree(merge_graphs([trunk, shadow, leaving]), SIZE), SIZE)
    assert degrees(pruned).count(1) == 3
    assert pruned.vertices[:, 1].max() == 0
    assert pruned.vertices[:, 1].min() == -39


def test_of_two_branches_side_by_side_the_thicker_one_stays():
    trunk = path([(0, y, 0) for y in range(60)], 50.0)
    thick = path([(0, 59, x) for x in range(60)], 60.0)
    thin = path([(0, 59, 0)] + [(0, 63, x) for x in range(1, 60)], 40.0)
    pruned = prune_shadows(spanning_tree(merge_graphs([trunk, thick, thin]), SIZE), SIZE)
    assert degrees(pruned).count(1) == 2
    assert pruned.vertices[:, 1].max() == 59


def test_a_single_path_is_never_pruned():
    tree = spanning_tree(path(along_x(0, 3), 1000.0), SIZE)
    assert len(prune_shadows(tree, SIZE).vertices) == 3


def test_nothing_stays_nothing():
    empty = Graph(np.empty((0, 3), np.int32), np.empty(0, np.float32), np.empty((0, 2), np.uint32))
    assert len(prune_shadows(spanning_tree(empty, SIZE), SIZE).vertices) == 0
    assert smoothed(empty).shape == (0, 3)


@pytest.mark.parametrize("slope", [0.3, 0.45, 0.7])
def test_the_stairs_of_an_oblique_path_are_smoothed_within_its_voxels(slope):
    stairs = path([(0, int(np.floor(slope * x)), x) for x in range(200)])
    places = smoothed(stairs)
    assert np.abs(places - stairs.vertices).max() <= 0.5
    assert places[[0, -1]].tolist() == stairs.vertices[[0, -1]].tolist()
    length = np.linalg.norm(np.diff(places, axis=0), axis=1).sum()
    straight = np.linalg.norm(stairs.vertices[-1] - stairs.vertices[0])
    before = np.linalg.norm(np.diff(stairs.vertices, axis=0), axis=1).sum()
    assert length < straight * 1.02 < before
