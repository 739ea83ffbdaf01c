"""Real mitochondria, grown until they touch, rendered as EM: the phantom's tissue around them.

The shapes are instance labels of real tissue. All of the phantom is drawn but its own mitochondria; the real shapes
lie over it, each with its own tone and cristae, with membranes on both sides of a face where two of them touch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from skimage.segmentation import expand_labels

from pipeline.geometry import BlockGrid
from pipeline.phantom.anatomy import grow_tissue
from pipeline.phantom.faults import expose
from pipeline.phantom.field import FAR_NM, WARP_LIMIT_NM, frame_shape, make_tile
from pipeline.phantom.grey import paint, paint_mitochondria, textures
from pipeline.phantom.hashing import line_keys, stream_key
from pipeline.phantom.organelles import grow_details
from pipeline.phantom.scene import Scene
from sam4em_core.sdf import signed_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.phantom.spec import PhantomSpec

DEPTH_NM = 128.0
"""Depths beyond this are painted alike."""


def grown(labels_zyx: NDArray[np.unsignedinteger], voxels: int) -> NDArray[np.uint32]:
    """Grow instances by some voxels, none into another: neighbors meet along faces. Ids are dense from 1."""
    wide = np.asarray(expand_labels(labels_zyx.astype(np.int64), voxels))
    return np.unique(wide, return_inverse=True)[1].reshape(wide.shape).astype(np.uint32)


def touching(labels_zyx: NDArray[np.uint32]) -> int:
    """How many objects share a face of a voxel with another object."""
    found: set[int] = set()
    for axis in range(3):
        ahead = np.moveaxis(labels_zyx, axis, 0)
        a, b = ahead[:-1], ahead[1:]
        pairs = (a != b) & (a > 0) & (b > 0)
        found |= set(np.unique(a[pairs]).tolist()) | set(np.unique(b[pairs]).tolist())
    return len(found)


def rendered(labels_zyx: NDArray[np.uint32], spec: PhantomSpec) -> NDArray[np.uint8]:
    """Draw instances of the spec's shape (0 outside, else dense from 1) as grey values."""
    depth_zyx = signed_distance(labels_zyx, spec.voxel_size_zyx_nm, DEPTH_NM) * np.float32(-DEPTH_NM)
    bodies = line_keys(stream_key(spec.seed, 90), np.arange(int(labels_zyx.max()) + 1))
    size = np.array(spec.voxel_size_zyx_nm)
    low, high = -np.full(3, WARP_LIMIT_NM), np.array(spec.shape_zyx) * size + WARP_LIMIT_NM
    curves = grow_tissue(spec.seed, low, high)
    details = grow_details(spec, curves, low, high)
    image_zyx = np.empty(spec.shape_zyx, np.uint8)
    grid = BlockGrid(spec.box, frame_shape(spec))
    for index in range(len(grid)):
        frame = grid.box(index)
        # Slopes need a rim of one voxel; the drawn bodies need none.
        tile = make_tile(spec, frame, frame.grown((1, 1, 1)))
        tissue = Scene.compose(spec, tile, curves, details)
        tissue = replace(tissue, depth_nm=np.full_like(tissue.depth_nm, FAR_NM))
        grey = paint(spec, tissue)
        rim = [(1, 1)] * 3
        owner = np.pad(labels_zyx[frame.slices].astype(np.int32), rim)
        bodies_here = replace(
            tissue,
            curves=replace(curves, keys=bodies),
            territory=replace(tissue.territory, owner=owner),
            depth_nm=np.pad(depth_zyx[frame.slices], rim, constant_values=FAR_NM),
        )
        paint_mitochondria(bodies_here, grey, *textures(spec, tile))
        image_zyx[frame.slices] = expose(spec, tile, grey)[1:-1, 1:-1, 1:-1]
    return image_zyx
