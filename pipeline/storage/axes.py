"""Axis order: from names in the metadata to zyx, and units of length to nm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import VolumeFormatError
from pipeline.geometry import Box, Vector

# Source: UDUNITS-2 names that OME-Zarr allows for space, and the symbols in common use.
_NM_PER_UNIT = {
    "nanometer": 1.0, "nm": 1.0,
    "angstrom": 0.1, "Å": 0.1,
    "picometer": 1e-3, "pm": 1e-3,
    "micrometer": 1e3, "micron": 1e3, "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00B5m": 1e3,
    "millimeter": 1e6, "mm": 1e6,
    "centimeter": 1e7, "cm": 1e7,
    "meter": 1e9, "m": 1e9,
    "inch": 2.54e7,
}  # fmt: skip
_DEFAULT_NAMES = {3: ("z", "y", "x"), 4: ("c", "z", "y", "x"), 5: ("t", "c", "z", "y", "x")}


def nanometers_per_unit(unit: object) -> float | None:
    """Give the length of a unit in nm; None where the unit is missing or not a length."""
    return _NM_PER_UNIT.get(unit) if isinstance(unit, str) else None


@dataclass(frozen=True)
class AxisOrder:
    """Where z, y and x lie among the stored axes; every other axis has one element."""

    names: tuple[str, ...]
    """Stored order."""
    shape: tuple[int, ...]
    """Stored extents."""

    @property
    def zyx(self) -> Vector:
        """Positions of z, y and x."""
        return self.names.index("z"), self.names.index("y"), self.names.index("x")

    def pick(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Take the z, y and x entries of something in stored order."""
        z, y, x = self.zyx
        return values[z], values[y], values[x]

    def selection(self, box: Box) -> tuple[slice | int, ...]:
        """Index of a box into the stored array; axes other than z, y, x are dropped."""
        by_name = dict(zip("zyx", box.slices, strict=True))
        return tuple(by_name.get(name, 0) for name in self.names)

    def to_zyx(self, voxels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Transpose what `selection` gave to zyx."""
        stored = [name for name in self.names if name in "zyx"]
        return voxels.transpose([stored.index(name) for name in "zyx"])


def axis_order(names: Sequence[str | None] | None, shape: Sequence[int], url: str) -> AxisOrder:
    """Check axes against what can be read: z, y, x in any order, other axes with one element.

    Without names the order is (t, c,) z, y, x.

    Raises:
        VolumeFormatError: rank, names or extents do not fit.
    """
    rank = len(shape)
    if names is None or any(name is None for name in names):
        if rank not in _DEFAULT_NAMES:
            raise VolumeFormatError(f"{url} has {rank} axes, shape {tuple(shape)}; a volume has three: z, y, x")
        named = _DEFAULT_NAMES[rank]
    else:
        named = tuple(str(name).lower() for name in names)
    if len(named) != rank or sorted(name for name in named if name in "zyx") != ["x", "y", "z"]:
        raise VolumeFormatError(
            f"{url} has axes {named} and shape {tuple(shape)}; a volume needs z, y and x, each once"
        )
    for name, extent in zip(named, shape, strict=True):
        if name not in "zyx" and extent != 1:
            raise VolumeFormatError(
                f"{url} has {extent} elements along axis {name!r}; only one is possible: select one and store it alone"
            )
    return AxisOrder(named, tuple(int(extent) for extent in shape))


def voxel_size_from_attributes(attributes: Mapping[str, Any]) -> tuple[float, ...] | None:
    """Find a zyx voxel size in the attributes that plain arrays carry, in nm.

    Source: `resolution` in nm (CREMI and funlib), `voxel_size` with `units` (funlib.persistence), and
    `element_size_um` (ImageJ and ilastik HDF5).
    """
    micrometers = _numbers(attributes.get("element_size_um"))
    if micrometers is not None:
        return tuple(1e3 * um for um in micrometers)
    units = attributes.get("units")
    factors = [1.0 if units is None else nanometers_per_unit(unit) for unit in units or [None] * 3]
    for key in ("resolution", "voxel_size"):
        sizes = _numbers(attributes.get(key))
        if sizes is not None and len(factors) == 3 and None not in factors:
            return tuple(size * float(factor or 1.0) for size, factor in zip(sizes, factors, strict=True))
    return None


def _numbers(value: object) -> list[float] | None:
    """Read three numbers, or None."""
    if value is None or isinstance(value, str | bytes | Mapping):
        return None
    found = np.ravel(np.asarray(value))
    return [float(number) for number in found] if found.size == 3 and found.dtype.kind in "iuf" else None
