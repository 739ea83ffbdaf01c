"""Labels as Neuroglancer precomputed: compressed_segmentation, several mips, sharded or not."""

from __future__ import annotations

import json
import math
import threading
from typing import Any

from pipeline.errors import ManifestMismatch, OurError, PlanError, VolumeFormatError
from pipeline.geometry import Box, Vector, ceil_div
from pipeline.storage.label_volume import BlockwiseLabels, LabelArray, LabelVolumeSpec, identity_attributes
from pipeline.storage.options import StorageOptions
from pipeline.storage.precomputed_volume import (
    PrecomputedScales,
    cloud_files,
    put_file,
    read_info,
    segmentation_info,
    shard_shape_zyx,
)
from pipeline.storage.segment_properties import PROPERTIES_FOLDER
from pipeline.storage.zarr_tree import delete_tree

_DEFAULT_OPTIONS = StorageOptions()
MAX_SHARD_BYTES = 512 * 2**20
"""Uncompressed bytes of one shard by default."""
_BYTES_PER_ID = 8
# Chunks whose codes share a minishard: 2^9 at most, so that a minishard's index stays near 10 KB.
_MAX_PRESHIFT_BITS = 9


class PrecomputedSegmentation(BlockwiseLabels):
    """Writer of precomputed segmentations. Mesh and skeleton folders beside the scales are left alone."""

    def __init__(self, spec: LabelVolumeSpec, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
        """Check the spec; no request is made.

        Raises:
            PlanError: no sharding specification gives the shard that is asked for.
        """
        super().__init__(spec)
        self._options = options
        self._shard_bits = None if spec.shard_zyx is None else _bits_of_shard(spec)
        self._scales_once: PrecomputedScales | None = None
        self._lock = threading.Lock()

    def write_unit_zyx(self, mip: int) -> Vector:
        """Voxels of one write unit; shards take the same number of chunks at every mip, as far as there are."""
        if not 0 <= mip < self.spec.num_mips:
            raise OurError(f"mip {mip} of {self.spec.url} does not exist; it has {self.spec.num_mips}")
        if self._shard_bits is None:
            return self.spec.chunk_zyx
        shape, chunk = self.spec.shape(mip), self.spec.chunk_zyx
        return shard_shape_zyx(sharding_specification(self._shard_bits, shape, chunk), shape, chunk)

    def create(self) -> None:
        """Write `info`; does nothing where the same spec is there already.

        Raises:
            ManifestMismatch: something else is there.
            StoreReadOnly: writing is not permitted.
        """
        if self._stored_info() is None:
            self._put_info(self._info() | {"sam4em": identity_attributes(self.spec, complete=False)})

    def mark(self, *, complete: bool) -> None:
        """Say in `info` whether the volume is whole; keys that others added stay.

        Raises:
            OurError: the volume was not created.
        """
        info = self._stored_info()
        if info is None:
            raise OurError(f"{self.spec.url} was marked before it was created")
        self._put_info(info | {"sam4em": identity_attributes(self.spec, complete=complete)})

    def is_complete(self) -> bool:
        """Whether `info` says that the volume is whole."""
        info = self._stored_info()
        return info is not None and bool(info["sam4em"].get("complete", False))

    def delete(self) -> None:
        """Remove the scales, the segment properties and `info`.

        Raises:
            ManifestMismatch: another output is there.
        """
        if self._stored_info() is not None:
            keys = [str(scale["key"]) for scale in self._info()["scales"]]
            if self.spec.url.startswith("memory://"):
                self._delete_in_memory()
            else:
                delete_tree(self.spec.url, [*keys, PROPERTIES_FOLDER], ["info"], self._options)

    def _delete_in_memory(self) -> None:
        """Remove everything from the memory that cloud-files keeps for itself."""
        files = cloud_files(self.spec.url, self._options)
        files.delete(list(files.list()))

    def _info(self) -> dict[str, Any]:
        """Build `info` from the spec."""
        spec = self.spec
        shapes = [spec.shape(mip) for mip in range(spec.num_mips)]
        levels = [(shape, spec.voxel_size(mip), self._offset(mip)) for mip, shape in enumerate(shapes)]
        bits = self._shard_bits
        sharding = None if bits is None else [sharding_specification(bits, s, spec.chunk_zyx) for s in shapes]
        return segmentation_info(levels, spec.chunk_zyx, sharding)

    def _offset(self, mip: int) -> Vector:
        """Voxel offset of a mip, rounded down to whole voxels where the ROI does not start on one."""
        spec, factor = self.spec, self.spec.factor(mip)
        origin = spec.origin_zyx_nm or (0.0, 0.0, 0.0)
        moved = [
            offset + math.floor(nm / size + 0.5)
            for offset, nm, size in zip(spec.offset_zyx_voxels, origin, spec.voxel_size_zyx_nm, strict=True)
        ]
        return moved[0] // factor[0], moved[1] // factor[1], moved[2] // factor[2]

    def _stored_info(self) -> dict[str, Any] | None:
        """Read `info`; None where there is none.

        Raises:
            ManifestMismatch: it belongs to another output.
        """
        raw = read_info(self.spec.url, self._options)
        if raw is None:
            return None
        try:
            info: dict[str, Any] = json.loads(raw)
        except ValueError as error:
            raise VolumeFormatError(f"{self.spec.url}/info is not JSON ({error})") from error
        if info.get("sam4em", {}).get("spec") != self.spec.digest():
            raise ManifestMismatch(
                f"{self.spec.url} holds another volume; choose another output, or --restart the run that made it"
            )
        return info

    def _put_info(self, info: dict[str, Any]) -> None:
        """Write `info`."""
        put_file(self.spec.url, self._options, "info", json.dumps(info, indent=2).encode())

    def _scales(self) -> PrecomputedScales:
        """Open the volume once."""
        with self._lock:
            if self._scales_once is None:
                self._scales_once = PrecomputedScales(self.spec.url, self._options, self._info(), trust_gaps=True)
            return self._scales_once

    def _write(self, mip: int, box: Box, labels_zyx: LabelArray, *, any_blank: bool) -> None:
        """Write through cloud-volume: shard by shard, or all chunks of the box."""
        del any_blank
        if self._shard_bits is None:
            self._scales().write(mip, box, labels_zyx)
            return
        for _, part in self._units(mip, box):
            self._scales().write(mip, part, labels_zyx[part.relative_to(box.start).slices])

    def _read(self, mip: int, box: Box) -> LabelArray:
        """Read through cloud-volume."""
        return self._scales().read(mip, box)


def sharding_specification(bits: int, shape_zyx: Vector, chunk_zyx: Vector) -> dict[str, Any]:
    """Write the sharding specification under which 2^bits chunks (as far as there are) make one shard."""
    grid = [ceil_div(extent, chunk) for extent, chunk in zip(shape_zyx, chunk_zyx, strict=True)]
    total = sum((count - 1).bit_length() for count in grid)
    inside = min(bits, total)
    preshift = min(inside, _MAX_PRESHIFT_BITS)
    return {
        "@type": "neuroglancer_uint64_sharded_v1",
        "hash": "identity",
        "preshift_bits": preshift,
        "minishard_bits": inside - preshift,
        "shard_bits": total - inside,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }


def attainable_shards(shape_zyx: Vector, chunk_zyx: Vector, max_bytes: int = MAX_SHARD_BYTES) -> tuple[Vector, ...]:
    """List the shard shapes that precomputed can have for uint64, smallest first: powers of two of chunks."""
    found: list[Vector] = []
    grid = [ceil_div(extent, chunk) for extent, chunk in zip(shape_zyx, chunk_zyx, strict=True)]
    for bits in range(sum((count - 1).bit_length() for count in grid) + 1):
        shard = shard_shape_zyx(sharding_specification(bits, shape_zyx, chunk_zyx), shape_zyx, chunk_zyx)
        if bits and shard[0] * shard[1] * shard[2] * _BYTES_PER_ID > max_bytes:
            break
        found.append(shard)
    return tuple(found)


def _bits_of_shard(spec: LabelVolumeSpec) -> int:
    """Find the number of bits that gives the shard of mip 0."""
    shards = attainable_shards(spec.shape_zyx, spec.chunk_zyx)
    if spec.shard_zyx not in shards:
        listed = ", ".join(str(shard) for shard in shards)
        raise PlanError(f"precomputed cannot have shards of {spec.shard_zyx} for {spec.url}; possible are {listed}")
    return shards.index(spec.shard_zyx)
