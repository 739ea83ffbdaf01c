"""Intermediate arrays of a run: plain zarr v3, fast compression, written once, unit by unit.

A unit is a shard where there are shards, else a chunk. Every unit that is written has a file, one of zeros too: zarr
reads a lost one as zeros, so a unit without a file must mean that nothing was written there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from pipeline.errors import CorruptData, ManifestMismatch, OurError
from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.storage.faults import store_faults
from pipeline.storage.label_volume import UnitRecord, checksum
from pipeline.storage.locations import refuse_read_only_scheme
from pipeline.storage.objects import ObjectStore
from pipeline.storage.options import StorageOptions
from pipeline.storage.zarr_store import ZarrNode, open_array, open_store
from pipeline.storage.zarr_tree import delete_tree

_DEFAULT_OPTIONS = StorageOptions()
# zstd 1: intermediates are read once or twice, so speed counts more than size.
_ZSTD_LEVEL = 1
_DTYPES = ("uint8", "uint16", "uint32", "uint64")


class LostChunk(CorruptData):
    """A unit that was written is gone."""

    def __init__(self, message: str, box: Box) -> None:
        """Keep the unit's voxels beside the message."""
        super().__init__(message)
        self.box = box


@dataclass(frozen=True)
class ScratchSpec:
    """Everything that decides a scratch array."""

    url: str
    """Address of the array."""
    shape_zyx: Vector
    """Voxels."""
    chunk_zyx: Vector
    """Chunk, voxels."""
    dtype: str = "uint8"
    """uint8, uint16, uint32 or uint64; fill value 0."""
    num_channels: int | None = None
    """None stores (z, y, x), a number (c, z, y, x) with all channels in one chunk."""
    shard_zyx: Vector | None = None
    """Shard, voxels, whole chunks; None: every chunk is a file."""

    def __post_init__(self) -> None:
        """Refuse dtypes that are not unsigned and shapes that are no shapes.

        Raises:
            OurError: one of them.
        """
        if self.dtype not in _DTYPES:
            raise OurError(f"scratch array {self.url} cannot be {self.dtype}; it can be " + ", ".join(_DTYPES))
        if min(*self.shape_zyx, *self.chunk_zyx, self.num_channels or 1) <= 0:
            raise OurError(f"scratch array {self.url} needs a positive shape and chunk")

    @property
    def unit_zyx(self) -> Vector:
        """What is written whole, voxels."""
        return self.shard_zyx or self.chunk_zyx

    @property
    def channels(self) -> tuple[int, ...]:
        """Leading axes of the stored array."""
        return () if self.num_channels is None else (self.num_channels,)


class ScratchArray:
    """Reads any box, writes whole units."""

    def __init__(self, spec: ScratchSpec, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
        """Keep the spec; no request is made."""
        refuse_read_only_scheme(spec.url)
        self.spec = spec
        self._options = options
        self._objects = ObjectStore(spec.url, options)
        self._array_once: zarr.Array[Any] | None = None
        self._lock = threading.Lock()

    @property
    def grid(self) -> BlockGrid:
        """Units of the array."""
        return BlockGrid(Box.of_shape(self.spec.shape_zyx), self.spec.unit_zyx)

    def create(self) -> None:
        """Write the metadata; does nothing where an equal array is there already.

        Raises:
            ManifestMismatch: something else is there.
            StoreReadOnly: writing is not permitted.
        """
        spec = self.spec
        node = ZarrNode(spec.url, self._options)
        if node.exists:
            self._check_same(json.loads(node.raw))
            return
        store = open_store(spec.url, self._options, writable=True)
        with store_faults(f"creating {spec.url}", "write"):
            zarr.create_array(
                store=store,
                shape=spec.channels + spec.shape_zyx,
                dtype=spec.dtype,
                chunks=spec.channels + spec.chunk_zyx,
                shards=None if spec.shard_zyx is None else spec.channels + spec.shard_zyx,
                compressors=ZstdCodec(level=_ZSTD_LEVEL),
                fill_value=0,
            )

    def write(self, box: Box, voxels: NDArray[Any]) -> tuple[UnitRecord, ...]:
        """Write whole units.

        Args:
            box: whole units, clipped to the array.
            voxels: shape `box.shape`, after the channels where there are any; the array's dtype.

        Returns:
            One record per unit; its checksum is over all channels.

        Raises:
            OurError: the box is not whole units, or the voxels do not fit it.
        """
        self._check_aligned(box)
        if voxels.shape != self.spec.channels + box.shape or str(voxels.dtype) != self.spec.dtype:
            raise OurError(f"writing box {box} of {self.spec.url}: voxels are {voxels.dtype} {voxels.shape}")
        if box.is_empty:
            return ()
        with store_faults(f"writing box {box} of {self.spec.url}", "write"):
            self._array()[(..., *box.slices)] = voxels
        grid = self.grid
        return tuple(
            UnitRecord(grid.position(index), checksum(voxels[(..., *grid.box(index).relative_to(box.start).slices)]))
            for index in grid.touched_by(box)
        )

    def read(self, box: Box, is_blank: Callable[[Box], bool] | None = None) -> NDArray[Any]:
        """Read a box, all channels.

        Args:
            box: voxels to read.
            is_blank: tells of a unit that has no file whether it was left out on purpose; it then reads as zeros.
                None: none was.

        Raises:
            OurError: the box reaches outside.
            CorruptData: a chunk does not decode.
            LostChunk: a unit was written and is gone.
        """
        if not Box.of_shape(self.spec.shape_zyx).contains(box):
            raise OurError(f"box {box} reaches outside {self.spec.url}, shape {self.spec.shape_zyx}")
        with store_faults(f"reading box {box} of {self.spec.url}", contents=CorruptData):
            voxels = np.asarray(self._array()[(..., *box.slices)])
        self._refuse_lost(box, voxels, is_blank)
        return voxels

    def _refuse_lost(self, box: Box, voxels: NDArray[Any], is_blank: Callable[[Box], bool] | None) -> None:
        """Look for the file of every unit that read as zeros."""
        for index in self.grid.touched_by(box):
            unit = self.grid.box(index)
            inside = unit.intersection(box).relative_to(box.start)
            if voxels[(..., *inside.slices)].any() or self._objects.exists(self._key(self.grid.position(index))):
                continue
            if is_blank is None or not is_blank(unit):
                raise LostChunk(
                    f"reading box {box} of {self.spec.url}: unit {self.grid.position(index)} was written and is gone",
                    unit,
                )

    def _key(self, position: Vector) -> str:
        channel = () if self.spec.num_channels is None else (0,)
        return "/".join(("c", *(str(number) for number in channel + position)))

    def verify_unit(self, record: UnitRecord) -> None:
        """Re-read one unit and compare it with what was written.

        Raises:
            CorruptData: bytes are missing, damaged, or not those that were written.
        """
        box = self.grid.box(self.grid.index(record.position))
        if checksum(self.read(box)) != record.crc32c:
            raise CorruptData(f"unit {record.position} (box {box}) of {self.spec.url} is not what was written")

    def delete(self) -> None:
        """Remove the array: its chunks and its metadata."""
        self._array_once = None
        delete_tree(self.spec.url, ["c"], ["zarr.json"], self._options)

    def _array(self) -> zarr.Array[Any]:
        """Open the array once."""
        with self._lock:
            if self._array_once is None:
                array = open_array(self.spec.url, self._options, writable=True)
                self._array_once = array.with_config({"write_empty_chunks": True})
            return self._array_once

    def _check_same(self, found: dict[str, Any]) -> None:
        """Refuse an array of another spec."""
        spec = self.spec
        expected = (
            list(spec.channels + spec.shape_zyx),
            list(spec.channels + spec.unit_zyx),
            spec.dtype,
        )
        grid = found.get("chunk_grid", {}).get("configuration", {})
        if (found.get("shape"), grid.get("chunk_shape"), found.get("data_type")) != expected:
            raise ManifestMismatch(f"{spec.url} holds another array; --restart the run that made it")

    def _check_aligned(self, box: Box) -> None:
        """Refuse boxes that hold part of a unit."""
        shape, unit = self.spec.shape_zyx, self.spec.unit_zyx
        inside = Box.of_shape(shape).contains(box)
        starts = all(start % size == 0 for start, size in zip(box.start, unit, strict=True))
        ends = zip(box.stop, unit, shape, strict=True)
        if not (inside and starts and all(stop % size == 0 or stop == end for stop, size, end in ends)):
            raise OurError(f"box {box} of {self.spec.url} is not whole units of {unit} in {shape}")
