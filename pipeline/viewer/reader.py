"""A volume that is read by a function: for formats that a browser cannot read, and for pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError
from pipeline.geometry.box import Box, Vector

VectorNm = tuple[float, float, float]
"""Three lengths in nm, zyx."""


def check_voxel_size(voxel_size_zyx_nm: VectorNm, owner: str) -> None:
    """Refuse voxel sizes that are not three positive numbers.

    Raises:
        UserError: an axis is zero, negative, infinite or not a number.
    """
    if len(voxel_size_zyx_nm) != 3 or not all(0 < size < float("inf") for size in voxel_size_zyx_nm):
        raise UserError(
            f"showing {owner}: the voxel size is {voxel_size_zyx_nm} nm; give three positive numbers Z,Y,X in nm"
        )


@dataclass(frozen=True)
class BoxReader:
    """A volume and the function that reads it."""

    read: Callable[[Box], npt.NDArray[Any]]
    """Reads a box inside the volume, shape (z, y, x). Called from several threads at once."""
    shape_zyx: Vector
    """Extent, voxels."""
    dtype: np.dtype[Any]
    """What `read` returns."""
    voxel_size_zyx_nm: VectorNm
    """Size of a voxel, nm."""
    origin_zyx_nm: VectorNm = (0.0, 0.0, 0.0)
    """Where voxel (0, 0, 0) of `read` begins, nm."""

    def __post_init__(self) -> None:
        """Check what all geometry rests on.

        Raises:
            UserError: an empty volume, or a voxel size that is not positive.
        """
        check_voxel_size(self.voxel_size_zyx_nm, "a volume")
        if any(length < 1 for length in self.shape_zyx):
            raise UserError(f"showing a volume: its shape is {self.shape_zyx}; every axis must have a voxel")

    @classmethod
    def of_array(
        cls, array_zyx: npt.NDArray[Any], voxel_size_zyx_nm: VectorNm, origin_zyx_nm: VectorNm = (0.0, 0.0, 0.0)
    ) -> BoxReader:
        """Read from an array in memory, shape (z, y, x)."""

        def read(box: Box) -> npt.NDArray[Any]:
            return array_zyx[tuple(slice(start, stop) for start, stop in zip(box.start, box.stop, strict=True))]

        z, y, x = array_zyx.shape
        return cls(read, (z, y, x), array_zyx.dtype, voxel_size_zyx_nm, origin_zyx_nm)

    @property
    def shape(self) -> Vector:
        """Extent as numpy names it."""
        return self.shape_zyx

    def __getitem__(self, slices: tuple[slice, slice, slice]) -> npt.NDArray[Any]:
        """Read as an array is read: three slices with a start and a stop inside the volume."""
        z, y, x = slices
        start = (int(z.start), int(y.start), int(x.start))
        return self.read(Box(start, (int(z.stop), int(y.stop), int(x.stop))))
