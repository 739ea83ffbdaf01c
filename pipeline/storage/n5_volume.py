"""N5 volumes, read through tensorstore (extra `n5`). N5 counts xyz; arrays leave here as zyx.

An array (`em.n5/volumes/raw`), or a group whose levels are called s0, s1, ... (OpenOrganelle, BigDataViewer).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, VolumeFormatError
from pipeline.geometry import Box, Vector
from pipeline.storage.axes import nanometers_per_unit
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import join, local_path, parent, read_bytes, scheme_of
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

METADATA_NAME = "attributes.json"
# No pyramid has more levels: 2^24 voxels are halved to one.
_MAX_LEVELS = 24

Attributes = dict[str, Any]


class N5Volume(StoredVolume):
    """One N5 array."""

    def __init__(self, info: VolumeInfo, metadata: bytes, array: Any) -> None:
        """Wrap an open tensorstore, whose axes are x, y, z."""
        super().__init__(info, metadata)
        self._array = array

    def _read(self, box: Box) -> VoxelArray:
        """Read; a block that does not exist is zero."""
        voxels: VoxelArray = np.asarray(self._array[tuple(reversed(box.slices))].read().result())
        return voxels.transpose(2, 1, 0)


def open_n5_volume(
    url: str,
    options: StorageOptions,
    *,
    raw: bytes,
    voxel_size_zyx_nm: Nanometers | None,
    level: int,
    kind: Kind,
) -> N5Volume:
    """Open an array, or a level of a group.

    Args:
        url: the array or the group.
        options: how to reach the store.
        raw: its `attributes.json`.
        voxel_size_zyx_nm: in place of what the metadata says; that of the finest level.
        level: of the group's pyramid.
        kind: what the voxels mean.

    Raises:
        ConfigError: no such level, a scheme that tensorstore does not read, or the extra is not installed.
        VolumeFormatError: the metadata cannot be used.
    """
    attributes = _parse(raw, url)
    if "dimensions" in attributes:
        only_level(level, url)
        above = parent(url)
        group = _attributes(above[0], options) if above is not None else None
        place = _transform(attributes, group, above[1] if above is not None else "", url)
        return _open(url, options, attributes, kind, (voxel_size_zyx_nm or place[0], place[1]), None, 0)
    levels = _levels(url, options)
    checked_level(level, len(levels), url)
    places = [_transform(found, attributes, name, url) for name, found in levels]
    sizes = [_level_size(index, places, levels, voxel_size_zyx_nm) for index in range(len(levels))]
    infos = tuple(
        LevelInfo(name, _zyx(found["dimensions"], url), checked_voxel_size(size, url))
        for (name, found), size in zip(levels, sizes, strict=True)
    )
    name, found = levels[level]
    return _open(join(url, name), options, found, kind, (sizes[level], places[level][1]), infos, level)


def _open(
    url: str,
    options: StorageOptions,
    attributes: Attributes,
    kind: Kind,
    place: tuple[Nanometers | None, Nanometers | None],
    levels: tuple[LevelInfo, ...] | None,
    level: int,
) -> N5Volume:
    """Open one array and describe it; `place` is voxel size and the center of the first voxel, nm."""
    shape = _zyx(attributes.get("dimensions"), url)
    size = checked_voxel_size(place[0], url)
    origin = None
    if place[1] is not None and size is not None:
        origin = (place[1][0] - size[0] / 2, place[1][1] - size[1] / 2, place[1][2] - size[2] / 2)
    dtype = readable_dtype(np.dtype(str(attributes.get("dataType"))), kind, url)
    tensorstore = _tensorstore(url)
    with store_faults(f"opening {url}", contents=VolumeFormatError):
        spec = {"driver": "n5", "kvstore": kvstore_of(url, options)}
        array = tensorstore.open(spec, open=True, read=True).result()
    info = VolumeInfo(
        url=url,
        format="n5",
        shape_zyx=shape,
        dtype=dtype,
        chunk_zyx=_zyx(attributes.get("blockSize"), url),
        voxel_size_zyx_nm=size,
        levels=levels or (LevelInfo("", shape, size),),
        level=level,
        origin_zyx_nm=origin,
        axes=("x", "y", "z"),
    )
    return N5Volume(info, json.dumps(attributes, sort_keys=True).encode(), array)


def kvstore_of(url: str, options: StorageOptions) -> dict[str, Any]:
    """Say in tensorstore's words where a URL is.

    Raises:
        ConfigError: memory://, which is fsspec's own.
    """
    path, scheme = local_path(url), scheme_of(url)
    if path is not None:
        return {"driver": "file", "path": f"{path}/"}
    rest = url.partition("://")[2].rstrip("/")
    if scheme in ("http", "https"):
        host, _, inside = rest.partition("/")
        return {"driver": "http", "base_url": f"{scheme}://{host}", "path": f"/{inside}/"}
    bucket, _, inside = rest.partition("/")
    if scheme == "gs":
        return {"driver": "gcs", "bucket": bucket, "path": f"{inside}/"}
    if scheme == "s3":
        found: dict[str, Any] = {"driver": "s3", "bucket": bucket, "path": f"{inside}/"}
        if options.is_anonymous:
            found["aws_credentials"] = {"type": "anonymous"}
        elif options.profile is not None:
            found["aws_credentials"] = {"type": "profile", "profile": options.profile}
        if options.endpoint_url:
            found["endpoint"] = options.endpoint_url
        return found | ({"aws_region": options.region} if options.region else {})
    raise ConfigError(f"{url}: N5 is read from paths, file://, s3://, gs:// and https://, not from {scheme}://")


def _tensorstore(url: str) -> Any:
    try:
        return importlib.import_module("tensorstore")
    except ModuleNotFoundError as error:
        raise ConfigError(f'{url} is N5: install the reader for it, pip install "sam4em[n5]"') from error


def _attributes(url: str, options: StorageOptions) -> Attributes | None:
    raw = read_bytes(join(url, METADATA_NAME), options)
    return None if raw is None else _parse(raw, url)


def _parse(raw: bytes, url: str) -> Attributes:
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise VolumeFormatError(f"{METADATA_NAME} of {url} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise VolumeFormatError(f"{METADATA_NAME} of {url} holds no object")
    return found


def _levels(url: str, options: StorageOptions) -> list[tuple[str, Attributes]]:
    """Find s0, s1, ... below a group.

    Raises:
        VolumeFormatError: there is no s0.
    """
    levels: list[tuple[str, Attributes]] = []
    for index in range(_MAX_LEVELS):
        found = _attributes(join(url, f"s{index}"), options)
        if found is None or "dimensions" not in found:
            break
        levels.append((f"s{index}", found))
    if not levels:
        raise VolumeFormatError(f"{url} is an N5 group without levels s0, s1, ...; name the array of one volume in it")
    return levels


def _transform(
    attributes: Attributes, group: Attributes | None, name: str, url: str
) -> tuple[Nanometers | None, Nanometers | None]:
    """Find voxel size and center of the first voxel, nm: of the array itself, else in its group's multiscales.

    Source: OpenOrganelle's `transform` (axes, scale, translate, units); N5 viewers' `pixelResolution` (xyz, unit).
    """
    found = attributes.get("transform")
    for scale in (group or {}).get("multiscales") or []:
        for dataset in scale.get("datasets", []):
            if dataset.get("path") == name:
                found = found or dataset.get("transform")
    if isinstance(found, Mapping):
        return _named(found, "scale", url), _named(found, "translate", url)
    resolution = attributes.get("pixelResolution") or (group or {}).get("pixelResolution")
    if not isinstance(resolution, Mapping):
        return None, None
    factor = nanometers_per_unit(resolution.get("unit", "nm"))
    if factor is None:
        return None, None
    steps = attributes.get("downsamplingFactors") or [1, 1, 1]
    sizes = [float(nm) * factor * step for nm, step in zip(resolution["dimensions"], steps, strict=True)]
    return (sizes[2], sizes[1], sizes[0]), None


def _named(transform: Mapping[str, Any], key: str, url: str) -> Nanometers | None:
    """Take the z, y, x entries of a transform, in nm."""
    axes, values = list(transform.get("axes", ("z", "y", "x"))), transform.get(key)
    units = transform.get("units") or ["nm"] * 3
    if values is None:
        return None
    if sorted(axes) != ["x", "y", "z"] or len(values) != 3:
        raise VolumeFormatError(f"the transform of {url} has axes {axes} and {key} {values}; expected z, y and x")
    factors = [nanometers_per_unit(unit) for unit in units]
    if None in factors:
        return None
    by_axis = {axis: float(v) * float(f or 1.0) for axis, v, f in zip(axes, values, factors, strict=True)}
    return by_axis["z"], by_axis["y"], by_axis["x"]


def _level_size(
    index: int,
    places: list[tuple[Nanometers | None, Nanometers | None]],
    levels: list[tuple[str, Attributes]],
    given: Nanometers | None,
) -> Nanometers | None:
    """Voxel size of a level; one that the caller gives is that of s0, and grows as the metadata's do."""
    first, own = places[0][0], places[index][0]
    if given is None or index == 0:
        return given or own
    steps = levels[index][1].get("downsamplingFactors")
    if first is not None and own is not None:
        ratios = [size / base for size, base in zip(own, first, strict=True)]
    elif isinstance(steps, list) and len(steps) == 3:
        ratios = [float(step) for step in reversed(steps)]
    else:
        return None
    return (given[0] * ratios[0], given[1] * ratios[1], given[2] * ratios[2])


def _zyx(values: object, url: str) -> Vector:
    """Turn three numbers in xyz order round.

    Raises:
        VolumeFormatError: there are not three.
    """
    if not isinstance(values, list) or len(values) != 3:
        raise VolumeFormatError(f"{url} has the extents {values}; an N5 volume has three, x, y and z")
    return int(values[2]), int(values[1]), int(values[0])
