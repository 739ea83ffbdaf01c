"""Skeletons of labelled objects: traced block by block, put together again as trees.

A block covers its voxels and one plane of its upper neighbors, so any two voxels that touch are together in a block. In
a plane that two blocks share both set a vertex in the middle of each cross-section, the same voxel for both.

    block 0      block 1
    o--o--o--o|  o voxels; the plane of the last one is the first one of block 1
             |o--o--o--o

Only this module knows kimimaro, which is GPL: it is imported when the first skeleton is wanted, and need not be there.

Source: TEASAR, Sato et al. 2000, doi:10.1109/PCCGA.2000.883951, as kimimaro has it.
"""

from __future__ import annotations

from types import ModuleType
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.geometry import Spacing, Vector
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.dense import number_densely
from pipeline.labels.trees import Graph, merge_graphs, prune_shadows, smoothed, spanning_tree

# All but scale and const. Source: kimimaro 5.8.5, DEFAULT_TEASAR_PARAMS.
_TEASAR: Final = {
    "pdrf_scale": 100_000,
    "pdrf_exponent": 4,
    "soma_detection_threshold": 750,
    "soma_acceptance_threshold": 3500,
    "soma_invalidation_const": 300,
    "soma_invalidation_scale": 2,
}


class SkeletonFragments(NamedTuple):
    """What one block holds of its objects' skeletons, object after object."""

    ids: SegmentArray
    """Ascending, shape (n,)."""
    num_vertices: NDArray[np.int64]
    """Vertices of each object, shape (n,)."""
    num_edges: NDArray[np.int64]
    """Edges of each object, shape (n,)."""
    vertices: NDArray[np.int32]
    """Voxels of the volume, zyx, shape (sum of num_vertices, 3)."""
    radii: NDArray[np.float32]
    """Distance of each vertex to the outside, as far as the block shows it, in nm."""
    edges: NDArray[np.uint32]
    """Rows of two of an object's own vertices, from 0, shape (sum of num_edges, 2)."""

    def of(self, index: int) -> Graph:
        """Give one object's fragment."""
        vertex, edge = int(self.num_vertices[:index].sum()), int(self.num_edges[:index].sum())
        own = slice(vertex, vertex + int(self.num_vertices[index]))
        return Graph(self.vertices[own], self.radii[own], self.edges[edge : edge + int(self.num_edges[index])])


class Skeleton(NamedTuple):
    """One object's skeleton: a tree, or several where its parts do not touch."""

    vertices_zyx: NDArray[np.float64]
    """Shape (n, 3); in output voxels of the volume, whose first voxel has its center at 0."""
    radii_nm: NDArray[np.float32]
    """Distance of each vertex to the outside of the object, shape (n,)."""
    edges: NDArray[np.uint32]
    """Rows of two vertices, shape (m, 2)."""


def load_kimimaro() -> ModuleType:
    """Import kimimaro.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import kimimaro  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"making skeletons: the package kimimaro cannot be imported ({error}). It is no part of the default "
            "install, because its license is GPL-3.0; where that is no obstacle, "
            'pip install "sam4em[skeleton]" adds it, on the machines of the workers too'
        ) from error
    return kimimaro


def cut_skeletons(
    ids_zyx: SegmentArray,
    start_zyx: Vector,
    voxel_size_zyx_nm: Spacing,
    scale: float,
    const_nm: float,
    chosen: SegmentArray | None = None,
) -> SkeletonFragments:
    """Trace the skeletons of all objects in a block.

    Args:
        ids_zyx: ids of the block's voxels and of the planes that it shares with its upper neighbors.
        start_zyx: voxel of the volume at which `ids_zyx` begins.
        voxel_size_zyx_nm: voxel size.
        scale: a path covers what lies within this many radii,
        const_nm: and so many nm more; what is not covered gets a branch.
        chosen: the only ids to look at, ascending; None: all.

    Returns:
        The fragments; objects without an edge here are not in it.

    Raises:
        ConfigError: kimimaro is not installed.
    """
    kimimaro = load_kimimaro()
    dense_zyx, ids = number_densely(ids_zyx, chosen)
    found = kimimaro.skeletonize(
        dense_zyx,
        teasar_params={**_TEASAR, "scale": scale, "const": const_nm},
        anisotropy=voxel_size_zyx_nm,
        dust_threshold=0,
        fix_borders=True,
        progress=False,
        parallel=1,
    )
    rows = []
    for label, traced in found.items():
        if len(traced.edges):
            vertices = np.rint(traced.vertices / np.array(voxel_size_zyx_nm)).astype(np.int32)
            vertices += np.array(start_zyx, np.int32)
            rows.append((ids[int(label)], Graph(vertices, traced.radii.astype(np.float32), traced.edges)))
    rows.sort(key=lambda row: row[0])
    return pack_skeletons([number for number, _ in rows], [graph for _, graph in rows])


def pack_skeletons(ids: list[int], graphs: list[Graph]) -> SkeletonFragments:
    """Put the fragments of several objects, in ascending order of ids, one after the other."""
    return SkeletonFragments(
        np.array(ids, np.uint64),
        np.array([len(graph.vertices) for graph in graphs], np.int64),
        np.array([len(graph.edges) for graph in graphs], np.int64),
        np.concatenate([np.empty((0, 3), np.int32), *(graph.vertices for graph in graphs)]).astype(np.int32),
        np.concatenate([np.empty(0, np.float32), *(graph.radii for graph in graphs)]),
        np.concatenate([np.empty((0, 2), np.uint32), *(graph.edges for graph in graphs)]).astype(np.uint32),
    )


def join_skeletons(
    fragments: list[Graph], voxel_size_zyx_nm: Spacing, *, tick_nm: float = 0.0, dust_nm: float = 0.0
) -> Skeleton:
    """Put one object together.

    1. vertices in the same voxel are one
    2. loops are opened where the object is thinnest
    3. branches that run in the shadow of others are removed: blocks cut objects lengthwise, too, and trace both parts
    4. parts that touch are tied; what is shorter than dust or ticks is removed
    5. the stairs of the voxel grid are smoothed: they make a path up to a fifth too long

    Args:
        fragments: of one object, one per block; in any order.
        voxel_size_zyx_nm: voxel size.
        tick_nm: shorter branches are removed.
        dust_nm: shorter parts are removed.

    Returns:
        Its skeleton; without a vertex where nothing is left.

    Raises:
        ConfigError: kimimaro is not installed.
    """
    size = np.array(voxel_size_zyx_nm)
    whole = prune_shadows(spanning_tree(merge_graphs(fragments), size), size)
    tidy = _tidy(whole, size, tick_nm, dust_nm)
    return Skeleton(smoothed(tidy), tidy.radii, tidy.edges)


def total_length_nm(skeleton: Skeleton, voxel_size_zyx_nm: Spacing) -> float:
    """Give the length of all branches."""
    places = skeleton.vertices_zyx * np.array(voxel_size_zyx_nm)
    return float(np.linalg.norm(places[skeleton.edges[:, 0]] - places[skeleton.edges[:, 1]], axis=1).sum())


def _tidy(graph: Graph, size: NDArray[np.float64], tick_nm: float, dust_nm: float) -> Graph:
    """Tie parts that touch, remove dust and ticks."""
    if not len(graph.edges):
        return graph
    kimimaro = load_kimimaro()
    import osteoid  # noqa: PLC0415, kimimaro needs it, so it is there

    # float32 over one object only: its own corner is the origin.
    origin = graph.vertices.min(axis=0)
    places = ((graph.vertices - origin) * size).astype(np.float32)
    traced = osteoid.Skeleton(places, graph.edges, radii=graph.radii, space="physical")
    kept = kimimaro.postprocess(traced, dust_threshold=dust_nm, tick_threshold=tick_nm)
    vertices = np.rint(kept.vertices.reshape(-1, 3) / size).astype(np.int32) + origin
    return Graph(vertices, kept.radii.reshape(-1).astype(np.float32), kept.edges.reshape(-1, 2).astype(np.uint32))
