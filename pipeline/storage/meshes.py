"""Meshes as Neuroglancer reads them: the legacy format, and several levels of detail in Draco, sharded.

    legacy            MESH/info, MESH/ID:0 (a list of one), MESH/ID:0:0 (vertices and triangles)
    multiresolution   MESH/info, MESH/SHARD.shard: of each object its fragments, level after level, then its manifest

Positions are nm in the space of the precomputed volume, x first: this file turns axes and triangles around.

Source: neuroglancer, src/datasource/precomputed/meshes.md.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import DracoPy
import numpy as np
from cloudvolume.datasource.precomputed.mesh.multilod import MultiLevelPrecomputedMeshManifest
from numpy.typing import NDArray

from pipeline.labels.triangles import cut_at_grid
from pipeline.storage.options import StorageOptions
from pipeline.storage.precomputed_volume import put_file
from pipeline.storage.shapes import IDENTITY, LEGACY_MESHES, MESHES, sharding_of, write_shard

MeshFormat = Literal["legacy", "multiresolution"]
_DEFAULT_OPTIONS = StorageOptions()
_QUANTIZATION_BITS: Final = 16
_LARGEST_POSITION: Final = 2**_QUANTIZATION_BITS - 1
# 0 (fast) to 10 (small). Source: DracoPy's default is 1; 7 is a third smaller at twice the time.
_DRACO_LEVEL: Final = 7


class Mesh(NamedTuple):
    """Triangles of one object, as they are stored; turning counterclockwise seen from outside in x, y, z."""

    vertices_nm: NDArray[np.float64]
    """x, y, z, shape (n, 3)."""
    triangles: NDArray[np.uint32]
    """Rows of three vertices, shape (m, 3)."""


def mesh_of(vertices_zyx_nm: NDArray[np.float64], triangles: NDArray[np.uint32]) -> Mesh:
    """Turn a surface from z, y, x to x, y, z; a reflection, so triangles turn the other way around."""
    return Mesh(np.ascontiguousarray(vertices_zyx_nm[:, ::-1]), np.ascontiguousarray(triangles[:, ::-1]))


def mesh_info(mesh_format: MeshFormat, last_id: int, objects_per_shard: int) -> dict[str, Any]:
    """Describe a folder of meshes.

    Args:
        mesh_format: which format.
        last_id: the largest id of the volume.
        objects_per_shard: ids in a row that share a file, a power of two.
    """
    if mesh_format == "legacy":
        return {"@type": LEGACY_MESHES}
    return {
        "@type": MESHES,
        "vertex_quantization_bits": _QUANTIZATION_BITS,
        "transform": list(IDENTITY),
        "lod_scale_multiplier": 1,
        "sharding": sharding_of(last_id, objects_per_shard),
    }


def write_legacy_mesh(url: str, segment: int, mesh: Mesh, options: StorageOptions = _DEFAULT_OPTIONS) -> bytes:
    """Write one object as legacy mesh; gives the bytes of its two files, one after the other.

    Raises:
        WorldError: the store failed.
    """
    name = f"{segment}:0:0"
    data = struct.pack("<I", len(mesh.vertices_nm)) + mesh.vertices_nm.astype("<f4").tobytes()
    data += mesh.triangles.astype("<u4").tobytes()
    put_file(url, options, name, data)
    listing = json.dumps({"fragments": [name]}).encode()
    put_file(url, options, f"{segment}:0", listing)
    return listing + data


def write_meshes(
    url: str, info: Mapping[str, Any], objects: Mapping[int, tuple[bytes, int]], options: StorageOptions
) -> bytes:
    """Write all meshes of one shard.

    Args:
        url: folder of the meshes.
        info: its description.
        objects: of each id what `encode_levels` gave; all of one shard, at least one.
        options: how the store is reached.

    Returns:
        The bytes of the file.

    Raises:
        WorldError: the store failed.
    """
    manifest_bytes = {segment: num_bytes for segment, (_, num_bytes) in objects.items()}
    return write_shard(url, info, {segment: data for segment, (data, _) in objects.items()}, options, manifest_bytes)


def encode_levels(segment: int, levels: Sequence[Mesh], voxel_size_nm: float) -> tuple[bytes, int]:
    """Encode one object in several levels of detail.

    Args:
        segment: its id.
        levels: finest first, each with about a quarter of the triangles of the one before.
        voxel_size_nm: length of an edge of the volume's voxels, for objects that have no extent.

    Returns:
        Fragments and manifest in one piece, and how many bytes of it the manifest has.
    """
    origin = np.floor(np.min([mesh.vertices_nm.min(axis=0) for mesh in levels], axis=0))
    extent = np.max([mesh.vertices_nm.max(axis=0) for mesh in levels], axis=0) - origin
    # The coarsest level is one cell; each finer one has cells of half the length.
    chunk = np.maximum(np.ceil(extent * 1.0001), voxel_size_nm) / 2 ** (len(levels) - 1)
    positions, sizes, fragments = [], [], []
    for number, mesh in enumerate(levels):
        encoded = _encode_level(mesh, origin, chunk, number)
        positions.append(np.array([position for position, _ in encoded], np.uint32).reshape(-1, 3))
        sizes += [len(data) for _, data in encoded]
        fragments += [data for _, data in encoded]
    manifest = MultiLevelPrecomputedMeshManifest(
        segment_id=segment,
        chunk_shape=chunk,
        grid_origin=origin,
        num_lods=len(levels),
        lod_scales=[_edge_length(mesh) for mesh in levels],
        vertex_offsets=np.zeros((len(levels), 3)),
        num_fragments_per_lod=[len(found) for found in positions],
        fragment_positions=positions,
        fragment_offsets=sizes,
    ).to_binary()
    return b"".join([*fragments, manifest]), len(manifest)


def _encode_level(
    mesh: Mesh, origin: NDArray[Any], chunk: NDArray[Any], level: int
) -> list[tuple[tuple[int, ...], bytes]]:
    """Cut one level into cells; gives position and bytes of each that holds a triangle, in Z-order."""
    cell = chunk * 2**level
    # A fragment above level 0 is drawn eighth by eighth, so its triangles are cut at its middle planes too.
    corners = cut_at_grid((mesh.vertices_nm - origin)[mesh.triangles], cell / 2 if level else cell)
    positions = (corners.mean(axis=1) / cell).astype(np.int64)
    encoded = []
    for position in sorted(map(tuple, np.unique(positions, axis=0).tolist()), key=_morton):
        inside = (corners[(positions == position).all(axis=1)] / cell - position) * _LARGEST_POSITION
        stored = np.clip(np.rint(inside), 0, _LARGEST_POSITION).astype(np.uint32)
        vertices, rows = np.unique(stored.reshape(-1, 3), axis=0, return_inverse=True)
        triangles = rows.reshape(-1, 3).astype(np.uint32)
        triangles = triangles[_is_proper(triangles)]
        if len(triangles):
            encoded.append((position, DracoPy.encode(vertices, triangles, compression_level=_DRACO_LEVEL)))
    return encoded


def _is_proper(triangles: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Tell triangles from those that rounding has turned into lines."""
    a, b, c = triangles.T
    return np.asarray((a != b) & (b != c) & (c != a))


def _morton(position: tuple[int, ...]) -> int:
    """Interleave the bits of a cell's position, x lowest."""
    code = 0
    for bit in range(max(position).bit_length()):
        for axis in range(3):
            code |= (position[axis] >> bit & 1) << (3 * bit + axis)
    return code


def _edge_length(mesh: Mesh) -> float:
    """Give the mean length of a triangle's edge: the detail of a level, in nm."""
    first, second = mesh.vertices_nm[mesh.triangles[:, 0]], mesh.vertices_nm[mesh.triangles[:, 1]]
    return float(np.linalg.norm(first - second, axis=1).mean())
