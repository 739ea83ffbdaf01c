"""Zarr volumes: OME-Zarr 0.4 and 0.5 at any level, and plain arrays of version 2 and 3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from pipeline.errors import VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box, Vector
from pipeline.storage.axes import AxisOrder, axis_order, voxel_size_from_attributes
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import file_system, join, parent
from pipeline.storage.ome import Dataset, Multiscale, parse_multiscales
from pipeline.storage.options import StorageOptions
from pipeline.storage.volume import (
    Kind,
    LevelInfo,
    Nanometers,
    StoredVolume,
    VolumeInfo,
    VoxelArray,
    checked_level,
    checked_voxel_size,
    only_level,
    readable_dtype,
)
from pipeline.storage.zarr_store import ZarrNode, open_array

# A dataset path has at most this many parts in practice (`0`, `s0`, `scale0/image`).
_MAX_PATH_PARTS = 2


class ZarrVolume(StoredVolume):
    """One zarr array, wherever its metadata came from."""

    def __init__(self, info: VolumeInfo, metadata: bytes, array: zarr.Array[Any], order: AxisOrder) -> None:
        """Wrap an open array."""
        super().__init__(info, metadata)
        self._array = array
        self._order = order

    def _read(self, box: Box) -> VoxelArray:
        """Read through zarr; a missing chunk is the fill value."""
        return self._order.to_zyx(np.asarray(self._array[self._order.selection(box)]))


@dataclass(frozen=True)
class _Place:
    """Where an array stands in its group's metadata."""

    multiscale: Multiscale
    dataset: Dataset
    raw: bytes


def open_zarr_volume(
    url: str, options: StorageOptions, *, voxel_size_zyx_nm: Nanometers | None, level: int, kind: Kind
) -> ZarrVolume:
    """Open an array, or a group that holds one multiscale image or one array.

    Raises:
        VolumeFormatError: several images, or axes and dtype that cannot be used.
        VolumeNotFound: no zarr node there.
        ConfigError: the level does not exist.
    """
    node = ZarrNode(url, options)
    if not node.exists:
        raise VolumeNotFound(f"{url} is no zarr array or group: zarr.json, .zarray and .zgroup are all missing")
    if node.is_array:
        only_level(level, url)
        return _open_array(url, options, voxel_size_zyx_nm, kind, _place_in_parents(url, options))
    images = parse_multiscales(node.attributes, url)
    if not images:
        child = _only_child(url, options)
        return open_zarr_volume(child, options, voxel_size_zyx_nm=voxel_size_zyx_nm, level=level, kind=kind)
    if len(images) > 1:
        names = ", ".join(f"{image.name or '(no name)'} at {image.datasets[0].path}" for image in images)
        raise VolumeFormatError(f"{url} holds {len(images)} multiscale images; name the array of one: {names}")
    return _open_level(url, options, voxel_size_zyx_nm, level, kind, images[0], node.raw)


def _open_level(
    url: str,
    options: StorageOptions,
    voxel_size: Nanometers | None,
    level: int,
    kind: Kind,
    image: Multiscale,
    raw: bytes,
) -> ZarrVolume:
    """Open one level of a multiscale image and describe all of them."""
    checked_level(level, len(image.datasets), url)
    arrays = [open_array(join(url, dataset.path), options) for dataset in image.datasets]
    sizes = _level_sizes(image, voxel_size, url)
    levels = tuple(
        LevelInfo(dataset.path, axis_order(image.axes, array.shape, url).pick(array.shape), size)
        for dataset, array, size in zip(image.datasets, arrays, sizes, strict=True)
    )
    place = _Place(image, image.datasets[level], raw)
    return _volume(url, arrays[level], kind, sizes[level], levels, level, place)


def _level_sizes(image: Multiscale, given: Nanometers | None, url: str) -> list[Nanometers | None]:
    """Voxel size of every level; a size that the caller gives is that of the finest level."""
    sizes = [checked_voxel_size(image.voxel_size_zyx_nm(dataset), url) for dataset in image.datasets]
    if given is None:
        return sizes
    base = checked_voxel_size(given, url) or given
    scales = [_zyx(image, dataset.scale) or (1.0, 1.0, 1.0) for dataset in image.datasets]
    if min(min(scale) for scale in scales) <= 0:
        raise VolumeFormatError(f"the multiscales metadata of {url} has a scale that is not above 0")
    return [
        tuple(nm * size / first for nm, size, first in zip(base, scale, scales[0], strict=True))  # type: ignore[misc]
        for scale in scales
    ]


def _zyx(image: Multiscale, values: tuple[float, ...]) -> Nanometers | None:
    """Take the z, y, x entries; None where the axes are not usable."""
    if not {"z", "y", "x"} <= set(image.axes):
        return None
    return values[image.axes.index("z")], values[image.axes.index("y")], values[image.axes.index("x")]


def _open_array(
    url: str, options: StorageOptions, voxel_size: Nanometers | None, kind: Kind, place: _Place | None
) -> ZarrVolume:
    """Open one array by its own address."""
    array = open_array(url, options)
    size: tuple[float, ...] | None = voxel_size
    if size is None and place is not None:
        size = place.multiscale.voxel_size_zyx_nm(place.dataset)
    if size is None:
        size = voxel_size_from_attributes(dict(array.attrs))
    return _volume(url, array, kind, checked_voxel_size(size, url), None, 0, place)


def _volume(
    url: str,
    array: zarr.Array[Any],
    kind: Kind,
    size: Nanometers | None,
    levels: tuple[LevelInfo, ...] | None,
    level: int,
    place: _Place | None,
) -> ZarrVolume:
    """Put array and metadata together."""
    names = place.multiscale.axes if place is not None else _array_axes(array)
    order = axis_order(names, array.shape, url)
    shape: Vector = order.pick(order.shape)
    info = VolumeInfo(
        url=url,
        format="ome-zarr" if place is not None else "zarr",
        shape_zyx=shape,
        dtype=readable_dtype(np.dtype(array.dtype), kind, url),
        chunk_zyx=order.pick(array.chunks),
        voxel_size_zyx_nm=size,
        levels=levels or (LevelInfo("", shape, size),),
        level=level,
        origin_zyx_nm=place.multiscale.corner_zyx_nm(place.dataset) if place is not None else None,
        axes=order.names,
    )
    raw = repr(array.metadata.to_dict()).encode() + (place.raw if place is not None else b"")
    return ZarrVolume(info, raw, array, order)


def _array_axes(array: zarr.Array[Any]) -> tuple[str | None, ...] | None:
    """Names of the axes of a plain array: zarr 3 `dimension_names`, or xarray's attribute in version 2."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if isinstance(names, list | tuple) else None


def _place_in_parents(url: str, options: StorageOptions) -> _Place | None:
    """Find the array in the multiscales of a group above it."""
    path, current = "", url
    for _ in range(_MAX_PATH_PARTS):
        above = parent(current)
        if above is None:
            return None
        current, name = above
        path = f"{name}/{path}" if path else name
        group = ZarrNode(current, options)
        if not group.exists:
            return None
        for image in parse_multiscales(group.attributes, current):
            for dataset in image.datasets:
                if dataset.path == path:
                    return _Place(image, dataset, group.raw)
    return None


def _only_child(url: str, options: StorageOptions) -> str:
    """Find the one image or array in a plain group; lists the group's own entries, not those of its arrays.

    Raises:
        VolumeFormatError: the group holds none, or several.
    """
    fs, path = file_system(url, options)
    with store_faults(f"listing group {url}"):
        entries = fs.ls(path, detail=True)
    names = sorted(str(e["name"]).rstrip("/").rpartition("/")[2] for e in entries if e["type"] == "directory")
    found = []
    for name in names:
        child = ZarrNode(join(url, name), options)
        if child.exists and (child.is_array or parse_multiscales(child.attributes, join(url, name))):
            found.append(name)
    if len(found) == 1:
        return join(url, found[0])
    if found:
        raise VolumeFormatError(f"{url} is a group of {len(found)} images; name one: " + ", ".join(found))
    raise VolumeFormatError(
        f"{url} is a zarr group without a multiscale image or an array; it holds: " + (", ".join(names) or "nothing")
    )
