"""What every label volume that is written promises: whole write units, checksums, a mark.

A write unit is the shard where sharded, else the chunk: anchored at voxel (0, 0, 0) of the output, the last of
an axis clipped to the volume. Each has one writer and is written whole. A unit of background alone has no bytes
in the store, so its record says `None`: a unit that has a checksum and no bytes was lost.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptData, OurError, PlanError
from pipeline.geometry import BlockGrid, Box, Vector, ceil_div
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import refuse_read_only_scheme
from pipeline.storage.volume import Nanometers

LabelArray = NDArray[np.uint64]
"""Ids in zyx order, 0 is background."""


@dataclass(frozen=True)
class LabelVolumeSpec:
    """Everything that decides the metadata of an output; equal specs are the same output."""

    url: str
    """Root of the volume; no other volume may lie there."""
    shape_zyx: Vector
    """Voxels of mip 0."""
    voxel_size_zyx_nm: Nanometers
    """nm per voxel of mip 0."""
    chunk_zyx: Vector
    """Chunk of every mip, voxels."""
    shard_zyx: Vector | None = None
    """Shard of mip 0, voxels; None stores every chunk in a file of its own."""
    factors_zyx: tuple[Vector, ...] = ()
    """Down-sampling from mip k to mip k + 1, for every k; its length is the number of mips less one."""
    offset_zyx_voxels: Vector = (0, 0, 0)
    """Where voxel (0, 0, 0) lies in the full volume, in voxels of mip 0: the start of the ROI."""
    origin_zyx_nm: Nanometers | None = None
    """Lower corner of the full volume in the source's own space; None where the source places itself nowhere."""
    class_name: str = "segment"
    """What the ids are."""
    run: str = ""
    """Digest of what decides the ids: two runs never write one output."""

    def __post_init__(self) -> None:
        """Refuse shapes that are no shapes.

        Raises:
            PlanError: an extent, a factor or a voxel size is not positive.
        """
        for name in ("shape_zyx", "voxel_size_zyx_nm", "chunk_zyx", "shard_zyx"):
            values = getattr(self, name)
            if values is not None and min(values) <= 0:
                raise PlanError(f"{name} {values} of {self.url} must be above 0 in every axis")
        if any(factor < 1 for step in self.factors_zyx for factor in step):
            raise PlanError(f"down-sampling factors {self.factors_zyx} of {self.url} must be 1 or more")

    @property
    def num_mips(self) -> int:
        """How many levels there are."""
        return len(self.factors_zyx) + 1

    def factor(self, mip: int) -> Vector:
        """Down-sampling from mip 0 to a mip."""
        total = [1, 1, 1]
        for step in self.factors_zyx[:mip]:
            total = [a * b for a, b in zip(total, step, strict=True)]
        return total[0], total[1], total[2]

    def shape(self, mip: int) -> Vector:
        """Voxels of a mip: rounded up level by level, so that every voxel of the finer level has a parent."""
        shape = self.shape_zyx
        for step in self.factors_zyx[:mip]:
            shape = (ceil_div(shape[0], step[0]), ceil_div(shape[1], step[1]), ceil_div(shape[2], step[2]))
        return shape

    def voxel_size(self, mip: int) -> Nanometers:
        """Voxel size of a mip in nm."""
        size, factor = self.voxel_size_zyx_nm, self.factor(mip)
        return size[0] * factor[0], size[1] * factor[1], size[2] * factor[2]

    def digest(self) -> str:
        """Identify the spec; the address is left out, so that an output may be moved."""
        content = {key: value for key, value in asdict(self).items() if key != "url"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class UnitRecord:
    """What one write unit must hold."""

    position: Vector
    """Place on the mip's grid of write units, zyx."""
    crc32c: int | None
    """Checksum of the decoded voxels (C order, little-endian uint64); None where all are background."""


class LabelVolumeWriter(Protocol):
    """A label volume that is being written; made from a spec without touching the store."""

    spec: LabelVolumeSpec

    def create(self) -> None:
        """Write the metadata; does nothing where the same spec is there already."""

    def write_unit_zyx(self, mip: int) -> Vector:
        """Voxels of one write unit."""

    def write(self, mip: int, box: Box, labels_zyx: LabelArray) -> tuple[UnitRecord, ...]:
        """Write whole write units."""

    def read(self, mip: int, box: Box) -> LabelArray:
        """Read back."""

    def verify_unit(self, mip: int, record: UnitRecord) -> None:
        """Re-read one unit and compare."""

    def num_files(self, mip: int) -> int:
        """Files of a mip if no unit is empty."""

    def mark(self, *, complete: bool) -> None:
        """Say in the volume's own metadata whether it is whole."""

    def is_complete(self) -> bool:
        """Whether `mark(complete=True)` was the last mark."""

    def delete(self) -> None:
        """Remove the volume and nothing else."""


class BlockwiseLabels:
    """Base of both formats: alignment, checksums, faults."""

    def __init__(self, spec: LabelVolumeSpec) -> None:
        """Check the spec; no request is made.

        Raises:
            ConfigError: the address can only be read.
        """
        refuse_read_only_scheme(spec.url)
        self.spec = spec

    @abstractmethod
    def write_unit_zyx(self, mip: int) -> Vector:
        """Voxels of one write unit."""

    @abstractmethod
    def _write(self, mip: int, box: Box, labels_zyx: LabelArray, *, any_blank: bool) -> None:
        """Write whole write units; those of background alone, of which there is one if `any_blank`, are removed."""

    @abstractmethod
    def _read(self, mip: int, box: Box) -> LabelArray:
        """Read a box that is not empty and lies inside."""

    def unit_grid(self, mip: int) -> BlockGrid:
        """Give the grid of write units of a mip."""
        return BlockGrid(Box.of_shape(self.spec.shape(mip)), self.write_unit_zyx(mip))

    def num_files(self, mip: int) -> int:
        """Count the files of a mip if no unit is empty."""
        return len(self.unit_grid(mip))

    def write(self, mip: int, box: Box, labels_zyx: LabelArray) -> tuple[UnitRecord, ...]:
        """Write whole write units.

        Args:
            mip: level.
            box: starts and stops on the grid of write units, or at the volume's end.
            labels_zyx: uint64, shape `box.shape`.

        Returns:
            One record per unit, in grid order.

        Raises:
            OurError: the box is not whole units, or the labels do not fit it.
            WorldError: the store failed.
        """
        self._check_aligned(mip, box)
        if labels_zyx.shape != box.shape or labels_zyx.dtype != np.uint64:
            raise OurError(
                f"writing mip {mip} of {self.spec.url}: labels are {labels_zyx.dtype} {labels_zyx.shape}, "
                f"but box {box} needs uint64 {box.shape}"
            )
        if box.is_empty:
            return ()
        records = tuple(
            UnitRecord(position, checksum(labels_zyx[part.relative_to(box.start).slices]))
            for position, part in self._units(mip, box)
        )
        any_blank = any(record.crc32c is None for record in records)
        with store_faults(f"writing box {box} of mip {mip} of {self.spec.url}", "write"):
            self._write(mip, box, labels_zyx, any_blank=any_blank)
        return records

    def read(self, mip: int, box: Box) -> LabelArray:
        """Read a box; units that are not there read as background.

        Raises:
            OurError: the box reaches outside the mip.
            CorruptData: bytes do not decode.
        """
        if not Box.of_shape(self.spec.shape(mip)).contains(box):
            raise OurError(f"box {box} reaches outside mip {mip} of {self.spec.url}, shape {self.spec.shape(mip)}")
        if box.is_empty:
            return np.zeros(box.shape, np.uint64)
        with store_faults(f"reading box {box} of mip {mip} of {self.spec.url}", contents=CorruptData):
            labels = self._read(mip, box)
        return np.require(labels, np.uint64, ["C", "W"])

    def verify_unit(self, mip: int, record: UnitRecord) -> None:
        """Re-read one write unit and compare it with what was written.

        Raises:
            CorruptData: bytes are missing, damaged, or not those that were written.
        """
        grid = self.unit_grid(mip)
        box = grid.box(grid.index(record.position))
        found = checksum(self.read(mip, box))
        if found == record.crc32c:
            return
        state = "is missing or all background" if found is None else f"has checksum {found:08x}"
        wanted = "all background" if record.crc32c is None else f"checksum {record.crc32c:08x}"
        raise CorruptData(
            f"write unit {record.position} (box {box}) of mip {mip} of {self.spec.url} {state}, "
            f"but the journal says {wanted}; run the same command again to redo it"
        )

    def _check_aligned(self, mip: int, box: Box) -> None:
        """Refuse boxes that hold part of a write unit."""
        unit, shape = self.write_unit_zyx(mip), self.spec.shape(mip)
        inside = Box.of_shape(shape).contains(box)
        starts = all(start % size == 0 for start, size in zip(box.start, unit, strict=True))
        stops = all(stop % size == 0 or stop == end for stop, size, end in zip(box.stop, unit, shape, strict=True))
        if not (inside and starts and stops):
            raise OurError(
                f"box {box} of mip {mip} of {self.spec.url} is not whole write units of {unit} in a volume of {shape}"
            )

    def _units(self, mip: int, box: Box) -> Iterator[tuple[Vector, Box]]:
        """Yield position and box of every write unit in an aligned box."""
        grid = self.unit_grid(mip)
        for index in grid.touched_by(box):
            yield grid.position(index), grid.box(index)


def checksum(voxels: NDArray[Any]) -> int | None:
    """CRC-32C of voxels in C order and little-endian; None where all are 0."""
    little = voxels.dtype.newbyteorder("<")
    value, is_background = 0, True
    for part in np.atleast_1d(voxels):
        # One slice at a time: the copy that bytes are stays in the processor's cache.
        is_background = is_background and not part.any()
        value = google_crc32c.extend(value, part.astype(little, copy=False).tobytes())
    return None if is_background else int(value)


def identity_attributes(spec: LabelVolumeSpec, *, complete: bool) -> dict[str, Any]:
    """What both formats store under `sam4em` in their metadata."""
    return {"spec": spec.digest(), "class": spec.class_name, "complete": complete}
