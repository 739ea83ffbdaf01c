"""Labels as OME-Zarr 0.5: a zarr v3 group with `multiscales` and `image-label`, arrays 0, 1, ... of uint64."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from pipeline.errors import ManifestMismatch, OurError, PlanError
from pipeline.geometry import Box, Vector
from pipeline.storage.faults import store_faults
from pipeline.storage.label_volume import BlockwiseLabels, LabelArray, LabelVolumeSpec, identity_attributes
from pipeline.storage.locations import join
from pipeline.storage.ome import OME_VERSION, multiscales_json
from pipeline.storage.options import StorageOptions
from pipeline.storage.volume import Nanometers
from pipeline.storage.zarr_store import ZarrNode, open_array, open_store
from pipeline.storage.zarr_tree import delete_tree, write_group

_DEFAULT_OPTIONS = StorageOptions()
# zstd 3: within 10 % of the size of level 9 on label chunks at several times its speed.
_ZSTD_LEVEL = 3


class OmeZarrLabels(BlockwiseLabels):
    """Writer of OME-Zarr labels."""

    def __init__(self, spec: LabelVolumeSpec, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
        """Check the spec; no request is made.

        Raises:
            PlanError: the shard is not a whole number of chunks.
        """
        super().__init__(spec)
        if spec.shard_zyx is not None and any(s % c for s, c in zip(spec.shard_zyx, spec.chunk_zyx, strict=True)):
            raise PlanError(f"shard {spec.shard_zyx} of {spec.url} must be whole chunks of {spec.chunk_zyx}")
        self._options = options
        self._arrays: dict[int, zarr.Array[Any]] = {}
        self._lock = threading.Lock()

    def write_unit_zyx(self, mip: int) -> Vector:
        """Voxels of one write unit: shard or chunk, the same at every mip."""
        self._check_mip(mip)
        return self.spec.shard_zyx or self.spec.chunk_zyx

    def create(self) -> None:
        """Write group and arrays; does nothing where the same spec is there already.

        Raises:
            ManifestMismatch: something else is there.
            StoreReadOnly: writing is not permitted.
        """
        if not self._exists():
            for mip in range(self.spec.num_mips):
                self._create_array(mip)
            # The group comes last: where it is, the arrays are.
            self._write_attributes(complete=False)

    def mark(self, *, complete: bool) -> None:
        """Say in the group's attributes whether the volume is whole."""
        self._write_attributes(complete=complete)

    def is_complete(self) -> bool:
        """Whether the group says that it is whole."""
        node = ZarrNode(self.spec.url, self._options)
        return bool(node.attributes.get("sam4em", {}).get("complete", False))

    def delete(self) -> None:
        """Remove arrays and group, and the folder if nothing else is in it.

        Raises:
            ManifestMismatch: another output is there.
        """
        if self._exists():
            self._arrays.clear()
            names = [str(mip) for mip in range(self.spec.num_mips)]
            delete_tree(self.spec.url, names, ["zarr.json"], self._options)

    def _exists(self) -> bool:
        """Whether this very output is there.

        Raises:
            ManifestMismatch: another output is there.
        """
        node = ZarrNode(self.spec.url, self._options)
        if not node.exists:
            return False
        if node.attributes.get("sam4em", {}).get("spec") != self.spec.digest():
            raise ManifestMismatch(
                f"{self.spec.url} holds another volume; choose another output, or --restart the run that made it"
            )
        return True

    def _create_array(self, mip: int) -> None:
        """Create the array of one mip; a driver that was killed here may have left it, still without chunks.

        Opened at the array's own address: below a common root zarr would write a group first, and that group, without
        our attributes, is another's volume to the next driver.

        Raises:
            ManifestMismatch: another array is there.
        """
        address = join(self.spec.url, str(mip))
        if ZarrNode(address, self._options).exists:
            found = open_array(address, self._options)
            expected = (self.spec.shape(mip), self.spec.chunk_zyx, self.spec.shard_zyx, np.dtype(np.uint64))
            if (found.shape, found.chunks, found.shards, found.dtype) != expected:
                raise ManifestMismatch(f"{address} is another array; choose another output")
            return
        store = open_store(address, self._options, writable=True)
        with store_faults(f"creating {address}", "write"):
            zarr.create_array(
                store=store,
                shape=self.spec.shape(mip),
                dtype=np.uint64,
                chunks=self.spec.chunk_zyx,
                shards=self.spec.shard_zyx,
                compressors=ZstdCodec(level=_ZSTD_LEVEL),
                dimension_names=["z", "y", "x"],
                fill_value=0,
            )

    def _write_attributes(self, *, complete: bool) -> None:
        """Write the group's metadata."""
        spec = self.spec
        sizes = [spec.voxel_size(mip) for mip in range(spec.num_mips)]
        ome = {
            "version": OME_VERSION,
            "multiscales": multiscales_json(spec.class_name, sizes, corner_zyx_nm(spec), "mode"),
            "image-label": {"version": OME_VERSION},
        }
        attributes = {"ome": ome, "sam4em": identity_attributes(spec, complete=complete)}
        write_group(spec.url, attributes, self._options)

    def _array(self, mip: int) -> zarr.Array[Any]:
        """Open the array of a mip once."""
        self._check_mip(mip)
        with self._lock:
            if mip not in self._arrays:
                self._arrays[mip] = open_array(join(self.spec.url, str(mip)), self._options, writable=True)
            return self._arrays[mip]

    def _write(self, mip: int, box: Box, labels_zyx: LabelArray, *, any_blank: bool) -> None:
        """Write through zarr, which deletes chunks and shards of fill value alone.

        Its search for those takes longer than to compress the chunks, so it is left out where there is none.
        """
        array = self._array(mip)
        if not any_blank and self.spec.shard_zyx is None:
            array = array.with_config({"write_empty_chunks": True})
        array[box.slices] = labels_zyx

    def _read(self, mip: int, box: Box) -> LabelArray:
        """Read through zarr."""
        return np.asarray(self._array(mip)[box.slices])

    def _check_mip(self, mip: int) -> None:
        """Refuse levels that do not exist."""
        if not 0 <= mip < self.spec.num_mips:
            raise OurError(f"mip {mip} of {self.spec.url} does not exist; it has {self.spec.num_mips}")


def corner_zyx_nm(spec: LabelVolumeSpec) -> Nanometers:
    """Lower corner of the output's first voxel in the space of the source.

    A source that places itself nowhere is taken to have the center of its first voxel at 0, as OME-Zarr
    without a translation has.
    """
    size, offset = spec.voxel_size_zyx_nm, spec.offset_zyx_voxels
    origin = spec.origin_zyx_nm or (-size[0] / 2, -size[1] / 2, -size[2] / 2)
    return (
        origin[0] + offset[0] * size[0],
        origin[1] + offset[1] * size[1],
        origin[2] + offset[2] * size[2],
    )
