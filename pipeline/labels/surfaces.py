"""Surfaces of labelled objects as triangles: cut block by block, put together again without a seam.

A block covers the cubes between its voxels and those of its upper neighbors, so every cube of the volume is in one
block. Where a surface leaves a block its border lies on half voxels, the same for both blocks; simplification leaves
borders alone, so fragments fit to the last bit.

    block 0      block 1
    o--o--o--o|  o voxel centers; the plane of the last one is the first one of block 1
             |o--o--o--o

Vertices of fragments are integers of 1/32 voxel over the whole volume: fragments fit exactly however far they lie
from the origin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import zmesh
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from pipeline.geometry import Spacing, Vector
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.dense import number_densely

STEPS_PER_VOXEL = 32
"""Vertices of fragments count in 1/32 voxel: 67 million voxels along an axis fit in 31 bits."""
# The error bound ends the simplification, not a number of triangles.
_MOST_REDUCTION = 1000


class Surface(NamedTuple):
    """One object's surface; triangles turn counterclockwise seen from outside, in z, y, x."""

    vertices_zyx: NDArray[np.float64]
    """Shape (n, 3); in output voxels of the volume, whose first voxel has its center at 0."""
    triangles: NDArray[np.uint32]
    """Rows of three vertices, shape (m, 3)."""


class Fragments(NamedTuple):
    """What one block holds of its objects' surfaces, object after object."""

    ids: SegmentArray
    """Ascending, shape (n,)."""
    num_vertices: NDArray[np.int64]
    """Vertices of each object, shape (n,)."""
    num_border: NDArray[np.int64]
    """How many of them, the first ones, lie where the surface goes on in another block, shape (n,)."""
    num_triangles: NDArray[np.int64]
    """Triangles of each object, shape (n,)."""
    vertices: NDArray[np.int32]
    """In 1/32 voxel, zyx, shape (sum of num_vertices, 3)."""
    triangles: NDArray[np.uint32]
    """Rows of an object's own vertices, from 0, shape (sum of num_triangles, 3)."""

    def of(self, index: int) -> Fragment:
        """Give one object's fragment."""
        vertex, triangle = int(self.num_vertices[:index].sum()), int(self.num_triangles[:index].sum())
        return Fragment(
            self.vertices[vertex : vertex + int(self.num_vertices[index])],
            int(self.num_border[index]),
            self.triangles[triangle : triangle + int(self.num_triangles[index])],
        )


class Fragment(NamedTuple):
    """What one block holds of one object's surface."""

    vertices: NDArray[np.int32]
    """In 1/32 voxel, zyx, shape (n, 3)."""
    num_border: int
    """How many of them, the first ones, lie where the surface goes on in another block."""
    triangles: NDArray[np.uint32]
    """Rows of vertices, shape (m, 3)."""


def cut_fragments(
    ids_zyx: SegmentArray,
    start_zyx: Vector,
    voxel_size_zyx_nm: Spacing,
    max_error_nm: float,
    chosen: SegmentArray | None = None,
) -> Fragments:
    """Find the surfaces of all objects in a block, and simplify them.

    Args:
        ids_zyx: ids of the block's voxels and of the planes that it shares with its upper neighbors; where the volume
            ends, one plane of background beyond it.
        start_zyx: voxel of the volume at which `ids_zyx` begins.
        voxel_size_zyx_nm: voxel size; distances of the simplification are in nm.
        max_error_nm: how far a surface may be moved by it.
        chosen: the only ids to look at, ascending; None: all.

    Returns:
        The fragments; objects without a triangle here are not in it.
    """
    dense_zyx, ids = number_densely(ids_zyx, chosen)
    rows = []
    for label, box in enumerate(find_objects(dense_zyx), start=1):
        if box is None:
            continue
        grown = tuple(slice(max(part.start - 1, 0), part.stop + 1) for part in box)
        start = tuple(part.start + first for part, first in zip(grown, start_zyx, strict=True))
        fragment = _cut(dense_zyx[grown] == label, (start[0], start[1], start[2]), voxel_size_zyx_nm, max_error_nm)
        if len(fragment.triangles):
            rows.append((ids[label], fragment))
    rows.sort(key=lambda row: row[0])
    return pack_fragments([int(number) for number, _ in rows], [fragment for _, fragment in rows])


def pack_fragments(ids: list[int], fragments: list[Fragment]) -> Fragments:
    """Put the fragments of several objects, in ascending order of ids, one after the other."""
    return Fragments(
        np.array(ids, np.uint64),
        np.array([len(fragment.vertices) for fragment in fragments], np.int64),
        np.array([fragment.num_border for fragment in fragments], np.int64),
        np.array([len(fragment.triangles) for fragment in fragments], np.int64),
        np.concatenate([np.empty((0, 3), np.int32), *(fragment.vertices for fragment in fragments)]),
        np.concatenate([np.empty((0, 3), np.uint32), *(fragment.triangles for fragment in fragments)]),
    )


def join_fragments(fragments: list[Fragment]) -> Surface:
    """Put one object together: border vertices at the same place are one.

    Args:
        fragments: of one object, one per block; in any order.

    Returns:
        Its surface: closed, when the volume and all of its blocks are.
    """
    border = np.concatenate([fragment.vertices[: fragment.num_border] for fragment in fragments])
    inner = np.concatenate([fragment.vertices[fragment.num_border :] for fragment in fragments])
    shared, places = np.unique(border, axis=0, return_inverse=True)
    places = places.reshape(-1)
    triangles = []
    first_border, first_inner = 0, len(shared)
    for fragment in fragments:
        num_inner = len(fragment.vertices) - fragment.num_border
        rows = np.concatenate(
            [
                places[first_border : first_border + fragment.num_border],
                np.arange(first_inner, first_inner + num_inner),
            ]
        )
        triangles.append(rows[fragment.triangles])
        first_border, first_inner = first_border + fragment.num_border, first_inner + num_inner
    vertices = np.concatenate([shared, inner]).astype(np.float64) / STEPS_PER_VOXEL
    return Surface(vertices, np.concatenate(triangles).astype(np.uint32))


def coarser(surface: Surface, voxel_size_zyx_nm: Spacing, num_triangles: int) -> Surface:
    """Give a surface with about so many triangles, for looking at it from afar; it need not be closed."""
    size = np.array(voxel_size_zyx_nm)
    origin = surface.vertices_zyx.min(axis=0)
    # float32 over one object only: its own corner is the origin.
    mesh = zmesh.Mesh(((surface.vertices_zyx - origin) * size).astype(np.float32), surface.triangles, None)
    simple = zmesh.simplify_fqmr(mesh, num_triangles)
    return Surface(simple.vertices.astype(np.float64) / size + origin, simple.faces.astype(np.uint32))


def count_edge_uses(triangles: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """List the edges of triangles, (lower vertex, higher vertex), and how many triangles have each."""
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    packed = (pairs.min(axis=1).astype(np.uint64) << np.uint64(32)) | pairs.max(axis=1).astype(np.uint64)
    edges, uses = np.unique(packed, return_counts=True)
    ends = np.stack([edges >> np.uint64(32), edges & np.uint64(0xFFFFFFFF)], axis=1)
    return ends.astype(np.uint32), uses


def _cut(is_object_zyx: NDArray[np.bool_], start_zyx: Vector, size_nm: Spacing, max_error_nm: float) -> Fragment:
    """Cut one object's surface out of a crop that holds all cubes in which it has a voxel."""
    # A mesher of its own per object: what one simplification leaves in it changes the next (zmesh 1.15).
    mesher = zmesh.Mesher(size_nm)
    mesher.mesh(np.ascontiguousarray(is_object_zyx).view(np.uint8))
    if not mesher.ids():
        return Fragment(np.empty((0, 3), np.int32), 0, np.empty((0, 3), np.uint32))
    mesh = mesher.get(1, reduction_factor=_MOST_REDUCTION, max_error=max_error_nm)
    steps = np.rint(mesh.vertices.astype(np.float64) / np.array(size_nm) * STEPS_PER_VOXEL).astype(np.int64)
    vertices = (steps + np.array(start_zyx) * STEPS_PER_VOXEL).astype(np.int32)
    triangles = mesh.faces.astype(np.uint32)
    edges, uses = count_edge_uses(triangles)
    is_border = np.zeros(len(vertices), np.bool_)
    is_border[edges[uses == 1]] = True
    # In the order of their places, border first: the same block gives the same bytes.
    order = np.lexsort((*vertices.T[::-1], ~is_border))
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return Fragment(vertices[order], int(is_border.sum()), rank[triangles])
