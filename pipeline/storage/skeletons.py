"""Skeletons as Neuroglancer reads them: vertices, edges and a radius per vertex, sharded or one file per id.

Positions are nm in the space of the precomputed volume, x first: this file turns axes around. They are float32, as the
format has them: 10 cm from the volume's first voxel a position is exact to 8 nm.

Source: neuroglancer, src/datasource/precomputed/skeletons.md.
"""

from __future__ import annotations

import struct
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.storage.shapes import IDENTITY, SKELETONS, sharding_of

SkeletonFormat = Literal["sharded", "files"]


def skeleton_info(skeleton_format: SkeletonFormat, last_id: int, objects_per_shard: int) -> dict[str, Any]:
    """Describe a folder of skeletons.

    Args:
        skeleton_format: which format.
        last_id: the largest id of the volume.
        objects_per_shard: ids in a row that share a file, a power of two.
    """
    radius = {"id": "radius", "data_type": "float32", "num_components": 1}
    info = {"@type": SKELETONS, "transform": list(IDENTITY), "vertex_attributes": [radius]}
    return info | ({"sharding": sharding_of(last_id, objects_per_shard)} if skeleton_format == "sharded" else {})


def encode_skeleton(
    vertices_zyx_nm: NDArray[np.float64], edges: NDArray[np.uint32], radii_nm: NDArray[np.float32]
) -> bytes:
    """Encode one object.

    Args:
        vertices_zyx_nm: shape (n, 3).
        edges: rows of two vertices, shape (m, 2).
        radii_nm: distance of each vertex to the outside of the object, shape (n,).
    """
    counts = struct.pack("<II", len(vertices_zyx_nm), len(edges))
    places_xyz = np.ascontiguousarray(vertices_zyx_nm[:, ::-1], "<f4")
    return b"".join([counts, places_xyz.tobytes(), edges.astype("<u4").tobytes(), radii_nm.astype("<f4").tobytes()])
