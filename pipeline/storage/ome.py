"""OME-Zarr 0.4 and 0.5 metadata: multiscales in, multiscales out. Pure: no store, no arrays.

In OME-Zarr an integer coordinate is the center of a voxel, so a level that is down-sampled by f begins
(f - 1) / 2 fine voxels later. Positions here are lower corners; they turn into centers in `multiscales_json` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import VolumeFormatError
from pipeline.storage.axes import nanometers_per_unit
from pipeline.storage.volume import Nanometers

OME_VERSION = "0.5"
"""Version that is written."""


@dataclass(frozen=True)
class Dataset:
    """One level of a multiscale image."""

    path: str
    """Array below the group."""
    scale: tuple[float, ...]
    """Per stored axis, in the axis' unit."""
    translation: tuple[float, ...]
    """Per stored axis, in the axis' unit: center of the first voxel."""


@dataclass(frozen=True)
class Multiscale:
    """One multiscale image of a group."""

    name: str
    """May be empty."""
    axes: tuple[str, ...]
    """Stored order."""
    units: tuple[float | None, ...]
    """nm per unit of each axis; None where it is no length or not given."""
    datasets: tuple[Dataset, ...]
    """Finest first."""

    def voxel_size_zyx_nm(self, dataset: Dataset) -> tuple[float, ...] | None:
        """Voxel size of a level; None where a unit is missing."""
        return self._spatial(dataset.scale)

    def corner_zyx_nm(self, dataset: Dataset) -> Nanometers | None:
        """Lower corner of the first voxel of a level; None where a unit is missing."""
        center, size = self._spatial(dataset.translation), self._spatial(dataset.scale)
        if center is None or size is None:
            return None
        return center[0] - size[0] / 2, center[1] - size[1] / 2, center[2] - size[2] / 2

    def _spatial(self, values: tuple[float, ...]) -> tuple[float, ...] | None:
        """Take the zyx entries and turn them into nm."""
        if sorted(set(self.axes) & set("zyx")) != ["x", "y", "z"]:
            return None
        found = []
        for name in "zyx":
            position = self.axes.index(name)
            unit = self.units[position]
            if unit is None:
                return None
            found.append(values[position] * unit)
        return tuple(found)


def parse_multiscales(attributes: Mapping[str, Any], url: str) -> tuple[Multiscale, ...]:
    """Read the multiscale images of a group's attributes; empty where there are none.

    Raises:
        VolumeFormatError: the metadata does not follow the specification.
    """
    holder = attributes.get("ome", attributes)
    entries = holder.get("multiscales") if isinstance(holder, Mapping) else None
    if not entries:
        return ()
    try:
        return tuple(_multiscale(entry) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise VolumeFormatError(
            f"the multiscales metadata of {url} does not follow OME-Zarr 0.4 or 0.5 ({type(error).__name__}: {error})"
        ) from error


def _multiscale(entry: Mapping[str, Any]) -> Multiscale:
    """Read one entry of `multiscales`."""
    axes = [axis if isinstance(axis, Mapping) else {"name": axis} for axis in entry["axes"]]
    names = tuple(str(axis["name"]).lower() for axis in axes)
    outer_scale, outer_shift = _transform(entry.get("coordinateTransformations", ()), len(names))
    datasets = []
    for item in entry["datasets"]:
        scale, shift = _transform(item.get("coordinateTransformations", ()), len(names))
        pairs = list(zip(scale, shift, outer_scale, outer_shift, strict=True))
        datasets.append(
            Dataset(
                str(item["path"]).strip("/"),
                tuple(inner * outer for inner, _, outer, _ in pairs),
                tuple(inner * outer + moved for _, inner, outer, moved in pairs),
            )
        )
    units = tuple(nanometers_per_unit(axis.get("unit")) for axis in axes)
    return Multiscale(str(entry.get("name", "")), names, units, tuple(datasets))


def _transform(steps: Sequence[Mapping[str, Any]], rank: int) -> tuple[list[float], list[float]]:
    """Compose scale and translation of a `coordinateTransformations` list."""
    scale, shift = [1.0] * rank, [0.0] * rank
    for step in steps:
        if step["type"] == "scale":
            factors = [float(value) for value in step["scale"]]
            scale = [a * b for a, b in zip(scale, factors, strict=True)]
            shift = [a * b for a, b in zip(shift, factors, strict=True)]
        elif step["type"] == "translation":
            shift = [a + float(b) for a, b in zip(shift, step["translation"], strict=True)]
    return scale, shift


def multiscales_json(
    name: str, sizes_zyx_nm: Sequence[Nanometers], corner_zyx_nm: Nanometers, kind: str
) -> list[dict[str, Any]]:
    """Write `multiscales` for zyx arrays named 0, 1, ...; all levels share their lower corner.

    Args:
        name: of the image.
        sizes_zyx_nm: voxel size per level.
        corner_zyx_nm: lower corner of the first voxel.
        kind: how levels were down-sampled, e.g. `mode` or `mean`.
    """
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [
                {"type": "scale", "scale": list(size)},
                {
                    "type": "translation",
                    "translation": [corner + nm / 2 for corner, nm in zip(corner_zyx_nm, size, strict=True)],
                },
            ],
        }
        for level, size in enumerate(sizes_zyx_nm)
    ]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    return [{"name": name, "axes": axes, "datasets": datasets, "type": kind}]
