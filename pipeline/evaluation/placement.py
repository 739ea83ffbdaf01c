"""Where two label volumes lie, and reading both on one voxel grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError, VolumeFormatError
from pipeline.geometry import Box, Vector, ceil_div

Nanometers = tuple[float, float, float]

_RATIO_TOLERANCE = 1e-3
"""Voxel sizes in metadata are rounded: 4.6 and 9.2000001 have the ratio 2."""
_CENTERED = "ome-zarr"
"""The format whose first voxel has its center, not its corner, at the origin."""
_OFFSET_TOLERANCE = 0.05
"""Part of a voxel by which an origin may miss the voxel grid (rounded metadata)."""


class Readable(Protocol):
    """What evaluation needs of a volume: reading a box of its own voxels, whose first is (0, 0, 0)."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Read the voxels of a box inside the volume."""


@dataclass(frozen=True)
class ValuesOnly:
    """A volume of classes, of which some values count as one mask."""

    volume: Readable
    """What is read."""
    values: tuple[int, ...]
    """Labels that become 1; all others become 0."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Read a box as 0 and 1."""
        return np.isin(self.volume.read(box), self.values).astype(np.uint8)


@dataclass(frozen=True)
class Placed:
    """A label volume and where it lies."""

    volume: Readable
    """Labels, 0 background: unsigned integers or bool."""
    shape_zyx: Vector
    """Extent in its own voxels."""
    voxel_size_zyx_nm: Nanometers | None
    """Voxel size in nm; None where unknown, then both volumes are taken to have the same."""
    offset_zyx: Vector = (0, 0, 0)
    """Where its first voxel lies, in its own voxels."""
    name: str = "volume"
    """For messages."""

    @property
    def box(self) -> Box:
        """The voxels covered, with the offset."""
        return Box.of_shape(self.shape_zyx, self.offset_zyx)


class StoredInfo(Protocol):
    """What evaluation takes from a stored volume's metadata."""

    @property
    def format(self) -> str:
        """`ome-zarr`, `precomputed`, ..."""

    @property
    def shape_zyx(self) -> Vector:
        """Voxels."""

    @property
    def voxel_size_zyx_nm(self) -> Nanometers | None:
        """Voxel size in nm; None where unknown."""

    @property
    def origin_zyx_nm(self) -> Nanometers | None:
        """Lower corner of the first voxel in nm; None where unknown."""


class Stored(Readable, Protocol):
    """A volume that describes itself."""

    @property
    def info(self) -> StoredInfo:
        """What the metadata says."""


def place(
    volume: Stored, name: str, voxel_size_zyx_nm: Nanometers | None = None, reference: Stored | None = None
) -> Placed:
    """Put a stored volume where its metadata says, relative to the first voxel of another one.

    OME-Zarr gives the center of the first voxel, precomputed its corner: where the two meet, half a voxel between them
    is a matter of format and not of place.

    Args:
        volume: labels.
        name: for messages.
        voxel_size_zyx_nm: used instead of the metadata's.
        reference: what the position is relative to, the truth; default: nothing, its first voxel lies at 0.

    Raises:
        UserError: the volume begins at no whole number of its voxels.
    """
    info = volume.info
    size = voxel_size_zyx_nm or info.voxel_size_zyx_nm
    if size is None or reference is None or info.origin_zyx_nm is None or reference.info.origin_zyx_nm is None:
        return Placed(volume, info.shape_zyx, size, (0, 0, 0), name)
    apart_nm = [
        here - there - half
        for here, there, half in zip(
            info.origin_zyx_nm, reference.info.origin_zyx_nm, _format_shift(info, reference.info), strict=True
        )
    ]
    exact = [gap / step for gap, step in zip(apart_nm, size, strict=True)]
    offset = [round(value) for value in exact]
    if max(abs(value - whole) for value, whole in zip(exact, offset, strict=True)) > _OFFSET_TOLERANCE:
        raise UserError(
            f"evaluating {name}: it begins {exact} voxels (z, y, x) beside the truth, which is no whole number; "
            "resample one of them, or correct its metadata"
        )
    return Placed(volume, info.shape_zyx, size, (offset[0], offset[1], offset[2]), name)


def _format_shift(info: StoredInfo, reference: StoredInfo) -> Nanometers:
    """Give by how much two files of the same voxels lie apart only because their formats count differently, in nm."""
    if (info.format == _CENTERED) == (reference.format == _CENTERED):
        return _center_shift(info, reference) if info.format == _CENTERED else (0.0, 0.0, 0.0)
    centered, sign = (info, -0.5) if info.format == _CENTERED else (reference, 0.5)
    size = centered.voxel_size_zyx_nm or (0.0, 0.0, 0.0)
    return (sign * size[0], sign * size[1], sign * size[2])


def _center_shift(info: StoredInfo, reference: StoredInfo) -> Nanometers:
    """Give how far the corners of two OME-Zarr volumes lie apart whose first centers meet, in nm; else nothing.

    Most writers give no translation whatever the voxel size, so that volumes that begin together seem not to.
    """
    none = (0.0, 0.0, 0.0)
    here, there = info.origin_zyx_nm or none, reference.origin_zyx_nm or none
    sizes = list(zip(info.voxel_size_zyx_nm or none, reference.voxel_size_zyx_nm or none, strict=True))
    halves = [(coarse - fine) / 2 for fine, coarse in sizes]
    gaps = [a - b - half for a, b, half in zip(here, there, halves, strict=True)]
    meet = all(abs(gap) <= _OFFSET_TOLERANCE * min(pair) for gap, pair in zip(gaps, sizes, strict=True))
    return (halves[0], halves[1], halves[2]) if meet else none


@dataclass(frozen=True)
class OnGrid:
    """A volume read on the common grid."""

    placed: Placed
    repeat: Vector
    """Voxels of the common grid per voxel of the volume."""

    @property
    def box(self) -> Box:
        """The voxels covered, on the common grid."""
        box = self.placed.box
        return Box(_times(box.start, self.repeat), _times(box.stop, self.repeat))

    def read(self, box: Box) -> npt.NDArray[np.unsignedinteger]:
        """Read a box of the common grid.

        Raises:
            VolumeFormatError: the voxels are no labels.
        """
        start = [a // r for a, r in zip(box.start, self.repeat, strict=True)]
        stop = [ceil_div(b, r) for b, r in zip(box.stop, self.repeat, strict=True)]
        own = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
        labels = self.placed.volume.read(own.relative_to(self.placed.offset_zyx))
        if labels.dtype.kind == "b":
            labels = labels.astype(np.uint8)
        if labels.dtype.kind != "u":
            raise VolumeFormatError(
                f"evaluating {self.placed.name}: found {labels.dtype}, labels must be unsigned integers or bool"
            )
        for axis, times in enumerate(self.repeat):
            if times > 1:
                labels = np.repeat(labels, times, axis=axis)
        return labels[box.relative_to(_times(own.start, self.repeat)).slices]


def _times(a: Vector, b: Vector) -> Vector:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


def common_grid(prediction: Placed, truth: Placed) -> tuple[Nanometers | None, tuple[Vector, Vector]]:
    """Find the finer voxel size of each axis and how often each volume is repeated to reach it.

    Raises:
        UserError: a ratio is not a whole number.
    """
    ones = (1, 1, 1)
    if prediction.voxel_size_zyx_nm is None or truth.voxel_size_zyx_nm is None:
        return prediction.voxel_size_zyx_nm or truth.voxel_size_zyx_nm, (ones, ones)
    repeats: list[list[int]] = [[], []]
    size: list[float] = []
    for p, t in zip(prediction.voxel_size_zyx_nm, truth.voxel_size_zyx_nm, strict=True):
        ratio = max(p, t) / min(p, t)
        times = round(ratio)
        if abs(ratio - times) > _RATIO_TOLERANCE * times:
            raise UserError(
                f"evaluating: voxel sizes {prediction.voxel_size_zyx_nm} nm (prediction) and "
                f"{truth.voxel_size_zyx_nm} nm (truth) have the ratio {ratio:.4g} along an axis; "
                "it must be a whole number: resample one of them"
            )
        repeats[0].append(times if p > t else 1)
        repeats[1].append(times if t > p else 1)
        size.append(min(p, t))
    first, second = ((r[0], r[1], r[2]) for r in repeats)
    return (size[0], size[1], size[2]), (first, second)


def common_region(prediction: OnGrid, truth: OnGrid, roi: Box | None) -> Box:
    """Choose what is compared, on the common grid.

    Raises:
        UserError: nothing is left, or the region leaves a volume.
    """
    common = prediction.box.intersection(truth.box)
    if roi is None:
        if common.is_empty:
            raise UserError(
                f"evaluating: prediction ({prediction.box}) and truth ({truth.box}) have no voxel in common; "
                "check offsets and voxel sizes"
            )
        return common
    region = Box(_times(roi.start, truth.repeat), _times(roi.stop, truth.repeat))
    if region.is_empty:
        raise UserError(f"evaluating: the region {roi} is empty")
    for side in (prediction, truth):
        if not side.box.contains(region):
            raise UserError(
                f"evaluating: the region {region} leaves {side.placed.name}, which covers {side.box} "
                "(voxels of the common grid)"
            )
    return region
