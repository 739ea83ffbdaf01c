"""Graphs over voxels, and the trees that skeletons are made of."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

# With 1.0 nearly half of 24 tubes and forks over small blocks kept a second path along a face, with 1.5 none; arms of
# forks stay.
_SHADOW_RADII: Final = 1.5
# A path that follows its voxels is 12 to 20 % too long, after so many rounds 2 %: tubes in all directions, voxels of
# 8 x 8 x 8 to 30 x 8 x 8 nm. Four times as many rounds gain half a per cent.
_SMOOTHING_ROUNDS: Final = 16
# Half a voxel: a vertex stays in its voxel, and so in its object.
_MOST_SHIFT: Final = 0.5


class Graph(NamedTuple):
    """Vertices in voxels, and edges between them."""

    vertices: NDArray[np.int32]
    """Voxels of the volume, zyx, shape (n, 3)."""
    radii: NDArray[np.float32]
    """Distance to the outside of the object in nm, shape (n,)."""
    edges: NDArray[np.uint32]
    """Rows of two vertices, shape (m, 2)."""


def merge_graphs(graphs: Sequence[Graph]) -> Graph:
    """Put graphs together: vertices in the same voxel are one.

    Its radius is the smallest of theirs, since a block does not see all of the outside. Vertices are in the order of
    their places, edges in that of their vertices, each once.
    """
    vertices, places = np.unique(np.concatenate([graph.vertices for graph in graphs]), axis=0, return_inverse=True)
    radii = np.full(len(vertices), np.inf, np.float32)
    np.minimum.at(radii, places.reshape(-1), np.concatenate([graph.radii for graph in graphs]))
    firsts = np.cumsum([0, *(len(graph.vertices) for graph in graphs[:-1])])
    rows = np.concatenate([graph.edges + first for graph, first in zip(graphs, firsts, strict=True)])
    edges = np.sort(places.reshape(-1)[rows.astype(np.int64)], axis=1)
    edges = np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)
    return Graph(vertices, radii, edges.astype(np.uint32))


def spanning_tree(graph: Graph, voxel_size_zyx_nm: NDArray[np.float64]) -> Graph:
    """Open every loop: keep the ways by which each vertex is reached soonest from where its part is thickest.

    A way is the slower the thinner the object is there.
    """
    if not len(graph.edges):
        return graph
    first, second = graph.edges.T.astype(np.int32)
    places = graph.vertices * voxel_size_zyx_nm
    lengths = np.linalg.norm(places[first] - places[second], axis=1)
    thickness = np.minimum(graph.radii[first], graph.radii[second]).astype(np.float64)
    ways = coo_array((lengths / thickness, (first, second)), shape=(len(places), len(places))).tocsr()
    _, before, _ = dijkstra(
        ways, directed=False, indices=_thickest(graph, ways), return_predecessors=True, min_only=True
    )
    after = np.flatnonzero(before >= 0)
    edges = np.sort(np.stack([before[after], after], axis=1), axis=1)
    return graph._replace(edges=np.unique(edges, axis=0).astype(np.uint32))


def _thickest(graph: Graph, ways: Any) -> NDArray[np.int64]:
    """Give the thickest vertex of every part."""
    _, part = connected_components(ways, directed=False)
    order = np.lexsort((-graph.radii.astype(np.float64), part))
    return order[np.unique(part[order], return_index=True)[1]]


def prune_shadows(tree: Graph, voxel_size_zyx_nm: NDArray[np.float64]) -> Graph:
    """Remove branches all of whose vertices lie within 1.5 radii of a vertex that stays; the thinnest first.

    Traced in one piece an object would not have them: a path covers what lies so near to it. Vertices without an edge
    go, too.
    """
    grown = _Branches(tree, voxel_size_zyx_nm)
    waiting = [(grown.thickness(leaf), leaf) for leaf in grown.leaves()]
    heapq.heapify(waiting)
    while waiting:
        thickness, leaf = heapq.heappop(waiting)
        if grown.thickness(leaf) > thickness:  # a branch beside it went, and it now reaches further
            heapq.heappush(waiting, (grown.thickness(leaf), leaf))
        elif grown.is_shadow(leaf):
            grown.remove(leaf)
    return _compact(tree, grown.edges())


class _Branches:
    """A tree whose branches are taken off one by one: each from its leaf to the next fork, which stays."""

    def __init__(self, tree: Graph, voxel_size_zyx_nm: NDArray[np.float64]) -> None:
        self._radii = tree.radii
        self._reach = _SHADOW_RADII * tree.radii.astype(np.float64)
        self._places = tree.vertices * voxel_size_zyx_nm
        self._neighbors: list[set[int]] = [set() for _ in tree.vertices]
        for first, second in tree.edges.tolist():
            self._neighbors[first].add(second)
            self._neighbors[second].add(first)
        self._is_there = np.array([bool(found) for found in self._neighbors], np.bool_)
        self._index = cKDTree(self._places)

    def leaves(self) -> list[int]:
        """List the vertices with one neighbor."""
        return [vertex for vertex, found in enumerate(self._neighbors) if len(found) == 1]

    def edges(self) -> NDArray[np.int64]:
        """List the edges that are left."""
        pairs = [(a, b) for a, found in enumerate(self._neighbors) for b in sorted(found) if a < b]
        return np.array(pairs, np.int64).reshape(-1, 2)

    def thickness(self, leaf: int) -> float:
        """Give the largest radius along a leaf's branch."""
        return float(self._radii[self._branch(leaf)[0]].max())

    def is_shadow(self, leaf: int) -> bool:
        """Whether all of a leaf's branch lies near what else is there; never where it is all there is."""
        branch, has_fork = self._branch(leaf)
        if not has_fork:
            return False
        self._is_there[branch] = False
        is_near = all(self._is_covered(vertex) for vertex in branch)
        self._is_there[branch] = True
        return is_near

    def remove(self, leaf: int) -> None:
        """Take a leaf's branch off."""
        for vertex in self._branch(leaf)[0]:
            for other in self._neighbors[vertex]:
                self._neighbors[other].discard(vertex)
            self._neighbors[vertex] = set()
            self._is_there[vertex] = False

    def _branch(self, leaf: int) -> tuple[list[int], bool]:
        """Walk from a leaf to the next fork, or to the other end where there is none."""
        branch, before, here = [leaf], leaf, next(iter(self._neighbors[leaf]))
        while len(self._neighbors[here]) == 2:
            branch.append(here)
            before, here = here, next(other for other in self._neighbors[here] if other != before)
        return branch, len(self._neighbors[here]) > 2

    def _is_covered(self, vertex: int) -> bool:
        near = np.array(self._index.query_ball_point(self._places[vertex], self._reach.max()), np.int64)
        near = near[self._is_there[near]]
        distance = np.linalg.norm(self._places[near] - self._places[vertex], axis=1)
        return bool((distance < self._reach[near]).any())


def smoothed(tree: Graph) -> NDArray[np.float64]:
    """Give the vertices drawn towards the middle of their neighbors, within their voxels; ends and forks stay.

    Returns:
        Places in voxels, zyx; a voxel's center is a whole number.
    """
    centers = tree.vertices.astype(np.float64)
    first, second = tree.edges[:, 0], tree.edges[:, 1]
    is_inner = (np.bincount(tree.edges.reshape(-1), minlength=len(centers)) == 2)[:, None]
    places = centers
    for _ in range(_SMOOTHING_ROUNDS):
        sums = np.zeros_like(places)
        np.add.at(sums, first, places[second])
        np.add.at(sums, second, places[first])
        drawn = np.clip(places / 2 + sums / 4, centers - _MOST_SHIFT, centers + _MOST_SHIFT)
        places = np.where(is_inner, drawn, centers)
    return places


def _compact(graph: Graph, edges: NDArray[np.int64]) -> Graph:
    """Keep the vertices that edges have."""
    kept, rows = np.unique(edges, return_inverse=True)
    return Graph(graph.vertices[kept], graph.radii[kept], rows.reshape(-1, 2).astype(np.uint32))
