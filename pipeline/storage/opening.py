"""The one door to a volume: looks at the metadata once and picks the format."""

from __future__ import annotations

import importlib
from typing import Any

from pipeline.errors import VolumeFormatError, VolumeNotFound
from pipeline.storage.hdf5_volume import open_hdf5_volume, split_address
from pipeline.storage.locations import file_system, join, read_bytes, scheme_of
from pipeline.storage.n5_volume import METADATA_NAME as N5_METADATA_NAME
from pipeline.storage.n5_volume import open_n5_volume
from pipeline.storage.options import StorageOptions
from pipeline.storage.slices_volume import list_slices, open_slices_volume
from pipeline.storage.tiff_volume import open_tiff_volume
from pipeline.storage.volume import Kind, Volume
from pipeline.storage.zarr_store import METADATA_NAMES
from pipeline.storage.zarr_volume import open_zarr_volume

_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_DEFAULT_OPTIONS = StorageOptions()
_FORMAT_PREFIXES = ("precomputed://", "zarr://", "zarr2://", "zarr3://", "n5://")


def open_volume(
    url: str,
    options: StorageOptions = _DEFAULT_OPTIONS,
    *,
    voxel_size_zyx_nm: tuple[float, float, float] | None = None,
    level: int = 0,
    kind: Kind = "image",
) -> Volume:
    """Open a volume of any format for reading.

    Formats: OME-Zarr 0.4 and 0.5, plain zarr v2 and v3 arrays, Neuroglancer precomputed, N5, a folder of
    PNG or TIFF slices, multi-page TIFF, HDF5 (`file.h5:dataset`). Places: paths, file://, s3://, gs://, https://,
    and memory:// inside one process.

    Args:
        url: address; a Neuroglancer prefix such as `precomputed://` is accepted.
        options: how to reach the store.
        voxel_size_zyx_nm: overrides what the metadata says; that of the finest level.
        level: of the pyramid, 0 is the finest.
        kind: `image` (uint8, uint16) or `labels` (any unsigned type).

    Raises:
        VolumeNotFound: nothing readable there.
        VolumeFormatError: several images, wrong dtype, wrong rank.
        ConfigError: a level, scheme or voxel size that cannot be.
        WorldError: the store failed.
    """
    url = _without_prefix(url)
    arguments: dict[str, Any] = {"voxel_size_zyx_nm": voxel_size_zyx_nm, "level": level, "kind": kind}
    scheme_of(url)
    if split_address(url) is not None:
        return open_hdf5_volume(url, options, **arguments)
    if url.lower().endswith(_TIFF_SUFFIXES):
        return open_tiff_volume(url, options, **arguments)
    if any(read_bytes(join(url, name), options) is not None for name in METADATA_NAMES):
        return open_zarr_volume(url, options, **arguments)
    raw = _precomputed_info(url, options)
    if raw is not None:
        # cloud-volume takes a second to import: only where it is needed.
        precomputed = importlib.import_module("pipeline.storage.precomputed_volume")
        opened: Volume = precomputed.open_precomputed_volume(url, options, raw=raw, **arguments)
        return opened
    raw = read_bytes(join(url, N5_METADATA_NAME), options)
    if raw is not None:
        return open_n5_volume(url, options, raw=raw, **arguments)
    return _open_slices(url, options, arguments)


def _without_prefix(url: str) -> str:
    """Drop a format prefix of Neuroglancer."""
    for prefix in _FORMAT_PREFIXES:
        if url.startswith(prefix):
            return url.removeprefix(prefix)
    return url


def _precomputed_info(url: str, options: StorageOptions) -> bytes | None:
    """Read `info`; cloud-files keeps a memory of its own for memory://."""
    if scheme_of(url) == "memory":
        precomputed = importlib.import_module("pipeline.storage.precomputed_volume")
        found: bytes | None = precomputed.read_info(url, options)
        return found
    return read_bytes(join(url, "info"), options)


def _open_slices(url: str, options: StorageOptions, arguments: dict[str, Any]) -> Volume:
    """Open a folder of slices, the format that has no metadata.

    Raises:
        VolumeNotFound: there is nothing, or only other files.
    """
    looked = "looked for zarr.json, .zarray, .zgroup, info, attributes.json, and a folder of .png, .tif or .tiff slices"
    fs, path = file_system(url, options)
    if scheme_of(url) in ("http", "https"):
        raise VolumeNotFound(f"{url} holds no volume: {looked} (slices cannot be listed over {scheme_of(url)})")
    try:
        files = list_slices(fs, path)
    except VolumeNotFound as error:
        raise VolumeNotFound(f"{url} does not exist: {looked}") from error
    if not files:
        raise VolumeNotFound(f"{url} holds no volume: {looked}")
    if len(files) == 1 and files[0][0].rstrip("/").endswith(path.rstrip("/").rpartition("/")[2]):
        raise VolumeFormatError(f"{url} is a single picture; give the folder of slices, or a multi-page TIFF")
    return open_slices_volume(url, files, fs, options, **arguments)
