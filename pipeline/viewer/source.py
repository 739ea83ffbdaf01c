"""How Neuroglancer is told to read a layer: the data source's URL, and a transform where the volume has no units."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import neuroglancer

from pipeline.errors import CorruptData, VolumeFormatError, VolumeNotFound
from pipeline.viewer.reader import BoxReader, VectorNm
from pipeline.viewer.scene import Layer

Driver = Literal["precomputed", "zarr", "zarr2", "zarr3"]

# Every file that may hold a zarr's own metadata, newest first, and Neuroglancer's name for its version.
ZARR_METADATA: Mapping[str, Driver] = MappingProxyType({"zarr.json": "zarr3", ".zarray": "zarr2", ".zattrs": "zarr2"})


@dataclass(frozen=True)
class Source:
    """A layer as a data source."""

    driver: Driver
    """Scheme of the data source; `zarr` makes Neuroglancer find the version itself."""
    axes: tuple[str, ...]
    """What Neuroglancer calls the axes z, y and x of this volume, in this order."""
    has_units: bool
    """Whether the volume's metadata say its voxel size; plain zarr arrays do not."""


def describe_source(layer: Layer) -> Source:
    """Find out how a layer must be opened.

    A remote layer is taken at its word: only the browser will read it.

    Raises:
        VolumeNotFound: the folder does not exist.
        VolumeFormatError: the folder holds no volume of the layer's format.
        CorruptData: its metadata file is not JSON.
    """
    root = layer.local_path
    if root is None:
        return Source("precomputed" if layer.format == "precomputed" else "zarr", tuple("zyx"), has_units=True)
    if not root.is_dir():
        raise VolumeNotFound(f"showing layer {layer.name!r}: there is no folder {root}")
    if layer.format == "precomputed":
        if not (root / "info").is_file() and not (root / "info.gz").is_file():
            raise VolumeFormatError(
                f"showing layer {layer.name!r}: {root} has no file `info`, so it is not precomputed"
            )
        return Source("precomputed", tuple("zyx"), has_units=True)
    return _describe_zarr(layer.name, root)


def _describe_zarr(name: str, root: Path) -> Source:
    filename = next((candidate for candidate in ZARR_METADATA if (root / candidate).is_file()), None)
    if filename is None:
        raise VolumeFormatError(
            f"showing layer {name!r}: {root} has none of {', '.join(ZARR_METADATA)}, so it is not a zarr volume"
        )
    driver = ZARR_METADATA[filename]
    metadata = _read_object(root / filename)
    attributes = metadata.get("attributes", {}) if driver == "zarr3" else metadata
    if attributes.get("ome", attributes).get("multiscales"):
        return Source(driver, tuple("zyx"), has_units=True)
    if filename != ".zarray" and metadata.get("node_type") != "array":
        raise VolumeFormatError(
            f"showing layer {name!r}: {root} is a zarr group without an image (`multiscales`); "
            "give the path of the image or array inside it"
        )
    return Source(driver, _array_axes(name, metadata), has_units=False)


def _array_axes(name: str, metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Name the axes of a plain array as Neuroglancer does.

    Source: neuroglancer, src/datasource/zarr/frontend.ts, getNormalizedDimensionNames.
    """
    rank = len(metadata.get("shape", ()))
    if rank != len("zyx"):
        raise VolumeFormatError(
            f"showing layer {name!r}: the zarr array has {rank} axes; three (z, y, x) would be right"
        )
    prefix = "dim_" if "node_type" in metadata else "d"
    given = metadata.get("dimension_names") or [None] * rank
    return tuple(axis or f"{prefix}{index}" for index, axis in enumerate(given))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptData(
            f"reading {path}: it is not JSON ({error}); the volume's metadata must be written again"
        ) from error
    if not isinstance(value, dict):
        raise CorruptData(f"reading {path}: found {type(value).__name__}, a JSON object would be right")
    return value


def source_of(layer: Layer, url: str) -> dict[str, Any]:
    """Write a layer's data source as Neuroglancer's JSON; a reader becomes a `LocalVolume` in it.

    Args:
        layer: what to show.
        url: where the browser finds the volume's root, without a slash at the end.

    Raises:
        VolumeNotFound, VolumeFormatError, CorruptData: see `describe_source`.
    """
    if layer.reader is not None:
        return _reader_source(layer, layer.reader)
    described = describe_source(layer)
    result: dict[str, Any] = {"url": f"{described.driver}://{url}"}
    if not described.has_units or any(layer.shift_zyx_nm):
        result["transform"] = _transform(described.axes, layer.voxel_size_zyx_nm, layer.shift_zyx_nm)
    return result


def side_source(url: str, shift_zyx_nm: VectorNm = (0.0, 0.0, 0.0)) -> dict[str, Any]:
    """Write a folder of meshes, skeletons or segment properties as a further data source of a layer."""
    result: dict[str, Any] = {"url": f"precomputed://{url}"}
    if any(shift_zyx_nm):
        z, y, x = shift_zyx_nm
        one = dict.fromkeys("xyz", (1e-09, "m"))
        matrix = [[1, 0, 0, x], [0, 1, 0, y], [0, 0, 1, z]]
        result["transform"] = {"inputDimensions": one, "outputDimensions": one, "matrix": matrix}
    return result


def _reader_source(layer: Layer, reader: BoxReader) -> dict[str, Any]:
    """Let Neuroglancer's own server read, scale down and send the voxels. Meshes would need the whole volume: off."""
    z, y, x = (moved + origin for moved, origin in zip(layer.shift_zyx_nm, reader.origin_zyx_nm, strict=True))
    dimensions = neuroglancer.CoordinateSpace(names=["z", "y", "x"], units="nm", scales=reader.voxel_size_zyx_nm)
    return {
        "url": neuroglancer.LocalVolume(reader, dimensions=dimensions, volume_type=_volume_type(layer)),
        "transform": _transform(tuple("zyx"), reader.voxel_size_zyx_nm, (z, y, x)),
        "subsources": {"default": True, "bounds": True},
        "enableDefaultSubsources": False,
    }


def _volume_type(layer: Layer) -> str:
    return "segmentation" if layer.kind == "segmentation" else "image"


def _transform(axes: tuple[str, ...], voxel_size_zyx_nm: VectorNm, shift_zyx_nm: VectorNm) -> dict[str, Any]:
    """Name the axes z, y, x, give them their voxel size and move the volume."""
    scales = [(size * 1e-9, "m") for size in voxel_size_zyx_nm]
    z, y, x = (moved / size for moved, size in zip(shift_zyx_nm, voxel_size_zyx_nm, strict=True))
    return {
        "inputDimensions": dict(zip(axes, scales, strict=True)),
        "outputDimensions": dict(zip("zyx", scales, strict=True)),
        "matrix": [[1, 0, 0, z], [0, 1, 0, y], [0, 0, 1, x]],
    }
