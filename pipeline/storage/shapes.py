"""Folders of shapes (meshes, skeletons) as Neuroglancer reads them: what both have alike.

    SHAPES/info                          which format, and how ids are dealt to shards
    SHAPES/SHARD.shard                   the shapes of a range of ids, or
    SHAPES/ID, SHAPES/ID:0, ...          files per id

Ids that share all but their lowest bits share a shard, so a range of ids is written by one writer.

Source: neuroglancer, src/datasource/precomputed/sharded.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from cloudvolume.datasource.precomputed.sharding import ShardingSpecification, synthesize_shard_files

from pipeline.storage.locations import parent
from pipeline.storage.objects import ObjectStore
from pipeline.storage.options import StorageOptions
from pipeline.storage.precomputed_volume import put_file, read_file, read_info

LEGACY_MESHES: Final = "neuroglancer_legacy_mesh"
MESHES: Final = "neuroglancer_multilod_draco"
SKELETONS: Final = "neuroglancer_skeletons"
# Files of one object where objects do not share shards.
_FILES: Final = MappingProxyType({LEGACY_MESHES: ("{}:0", "{}:0:0"), MESHES: (), SKELETONS: ("{}",)})
# Ids whose index entries lie together: 2^6 of 24 bytes each.
_MOST_PRESHIFT_BITS: Final = 6
IDENTITY: Final = (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
"""Value of `transform`: positions are nm already."""
_DEFAULT_OPTIONS = StorageOptions()


def sharding_of(last_id: int, objects_per_shard: int) -> dict[str, Any]:
    """Describe how ids are dealt to shards.

    Args:
        last_id: the largest id of the volume.
        objects_per_shard: ids in a row that share a file, a power of two.
    """
    bits = objects_per_shard.bit_length() - 1
    preshift = min(bits, _MOST_PRESHIFT_BITS)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": preshift,
        "minishard_bits": bits - preshift,
        "shard_bits": max(1, (last_id >> bits).bit_length()),
        "minishard_index_encoding": "raw",
        "data_encoding": "raw",
    }


def write_shape_info(url: str, info: Mapping[str, Any], options: StorageOptions = _DEFAULT_OPTIONS) -> None:
    """Write the description of a folder of shapes.

    Raises:
        WorldError: the store failed.
    """
    put_file(url, options, "info", json.dumps(info, indent=2).encode())


def write_shard(
    url: str,
    info: Mapping[str, Any],
    objects: Mapping[int, bytes],
    options: StorageOptions,
    index_bytes: Mapping[int, int] | None = None,
) -> bytes:
    """Write all objects of one shard.

    Args:
        url: folder of the shapes.
        info: its description.
        objects: bytes of each id; all of one shard, at least one.
        options: how the store is reached.
        index_bytes: how many bytes at the end of each object the shard's index points at; None: all.

    Returns:
        The bytes of the file.

    Raises:
        WorldError: the store failed.
    """
    files = synthesize_shard_files(ShardingSpecification.from_dict(info["sharding"]), dict(objects), index_bytes)
    ((name, content),) = files.items()
    put_file(url, options, name, content)
    return bytes(content)


def write_object(url: str, segment: int, data: bytes, options: StorageOptions) -> bytes:
    """Write one object as a file of its own; gives its bytes.

    Raises:
        WorldError: the store failed.
    """
    put_file(url, options, str(segment), data)
    return data


def read_shape_file(
    url: str, info: Mapping[str, Any], segment: int, options: StorageOptions = _DEFAULT_OPTIONS
) -> bytes | None:
    """Read the shard that holds an object, or its own files one after the other; None: one is not there.

    Raises:
        WorldError: the store failed.
    """
    if "sharding" not in info:
        parts = [read_file(url, options, name.format(segment)) for name in _FILES[info["@type"]]]
        return None if None in parts else b"".join(part for part in parts if part is not None)
    place = ShardingSpecification.from_dict(info["sharding"]).compute_shard_location(segment)
    return read_file(url, options, f"{place.shard_number}.shard")


def attach_shapes(volume_url: str, folder: str, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
    """Say in the `info` of a precomputed volume that it has shapes.

    Args:
        volume_url: the volume.
        folder: see `pipeline.storage.locations.SHAPE_FOLDERS`; its name is the key, too.
        options: how the store is reached.

    Raises:
        WorldError: the store failed.
    """
    raw = read_info(volume_url, options)
    if raw is not None:
        info = json.loads(raw) | {folder: folder}
        put_file(volume_url, options, "info", json.dumps(info, indent=2).encode())


def detach_shapes(volume_url: str, folder: str, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
    """Take shapes out of the `info` of a precomputed volume; the first step of deleting them.

    Raises:
        WorldError: the store failed.
    """
    raw = read_info(volume_url, options)
    info = json.loads(raw) if raw is not None else {}
    if info.pop(folder, None) is not None:
        put_file(volume_url, options, "info", json.dumps(info, indent=2).encode())


def has_shapes(url: str, options: StorageOptions = _DEFAULT_OPTIONS) -> bool:
    """Whether a folder of shapes is there."""
    raw = read_info(url, options)
    return raw is not None and json.loads(raw).get("@type") in _FILES


def delete_shapes(url: str, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
    """Remove a folder of shapes; anything else that may lie there is left alone.

    Raises:
        WorldError: the store failed.
    """
    split = parent(url)
    if split is not None and has_shapes(url, options):
        ObjectStore(split[0], options).delete_prefix(split[1])
