"""OME-Zarr 0.5 images and truth volumes: what phantoms and demos write."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from pipeline.errors import OurError
from pipeline.geometry import BlockGrid, Box, Vector, ceil_div
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import join, refuse_read_only_scheme
from pipeline.storage.ome import OME_VERSION, multiscales_json
from pipeline.storage.options import StorageOptions
from pipeline.storage.volume import Kind, Nanometers, VoxelArray, readable_dtype
from pipeline.storage.zarr_store import ZarrNode, open_array, open_store
from pipeline.storage.zarr_tree import delete_tree, write_group

_DEFAULT_OPTIONS = StorageOptions()
_ZSTD_LEVEL = 3


@dataclass(frozen=True)
class ImageSpec:
    """Everything that decides an image volume."""

    url: str
    """Group of the image; what lies there is replaced."""
    shape_zyx: Vector
    """Voxels of mip 0."""
    dtype: str
    """uint8 or uint16 for images, any unsigned type for labels."""
    voxel_size_zyx_nm: Nanometers
    """nm per voxel of mip 0."""
    chunk_zyx: Vector = (64, 64, 64)
    """Chunk of every mip, voxels."""
    factors_zyx: tuple[Vector, ...] = ()
    """Down-sampling from mip k to mip k + 1 (images only)."""
    kind: Kind = "image"
    """`labels` adds OME's `image-label`."""
    name: str = "image"
    """Name in the metadata."""
    corner_zyx_nm: Nanometers | None = None
    """Lower corner of the first voxel; by default half a voxel before 0, so that its center lies there."""

    def shape(self, mip: int) -> Vector:
        """Voxels of a mip."""
        shape = self.shape_zyx
        for step in self.factors_zyx[:mip]:
            shape = (ceil_div(shape[0], step[0]), ceil_div(shape[1], step[1]), ceil_div(shape[2], step[2]))
        return shape

    def voxel_size(self, mip: int) -> Nanometers:
        """Voxel size of a mip in nm."""
        z, y, x = self.voxel_size_zyx_nm
        for step in self.factors_zyx[:mip]:
            z, y, x = z * step[0], y * step[1], x * step[2]
        return z, y, x


class ImageWriter:
    """Writes an image block by block, then its pyramid by mean."""

    def __init__(self, spec: ImageSpec, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
        """Check the spec; no request is made.

        Raises:
            VolumeFormatError: a dtype that could not be read back.
            OurError: a pyramid of labels (mean would mix ids).
        """
        refuse_read_only_scheme(spec.url)
        readable_dtype(np.dtype(spec.dtype), spec.kind, spec.url)
        if spec.kind == "labels" and spec.factors_zyx:
            raise OurError(f"{spec.url}: labels have no mean; write their pyramid with OmeZarrLabels")
        self.spec = spec
        self._options = options
        self._arrays: dict[int, zarr.Array[Any]] = {}
        self._lock = threading.Lock()

    @property
    def num_mips(self) -> int:
        """How many levels there are."""
        return len(self.spec.factors_zyx) + 1

    def grid(self, mip: int = 0) -> BlockGrid:
        """Chunks of a mip."""
        return BlockGrid(Box.of_shape(self.spec.shape(mip)), self.spec.chunk_zyx)

    def create(self, *, replace: bool = True) -> None:
        """Write the metadata and drop what an earlier image left.

        Args:
            replace: false leaves an image that is there as it is.

        Raises:
            WorldError: the store failed.
        """
        spec = self.spec
        if not replace and ZarrNode(spec.url, self._options).exists:
            return
        store = open_store(spec.url, self._options, writable=True)
        self._arrays.clear()
        with store_faults(f"creating {spec.url}", "write"):
            for mip in range(self.num_mips):
                zarr.create_array(
                    store=store,
                    name=str(mip),
                    shape=spec.shape(mip),
                    dtype=spec.dtype,
                    chunks=spec.chunk_zyx,
                    compressors=ZstdCodec(level=_ZSTD_LEVEL),
                    dimension_names=["z", "y", "x"],
                    fill_value=0,
                    # Only an array is replaced; a folder that happens to be called 0 is not.
                    overwrite=ZarrNode(join(spec.url, str(mip)), self._options).exists,
                )
        size = spec.voxel_size_zyx_nm
        corner = spec.corner_zyx_nm or (-size[0] / 2, -size[1] / 2, -size[2] / 2)
        sizes = [spec.voxel_size(mip) for mip in range(self.num_mips)]
        ome: dict[str, Any] = {
            "version": OME_VERSION,
            "multiscales": multiscales_json(spec.name, sizes, corner, "mean"),
        }
        if spec.kind == "labels":
            ome["image-label"] = {"version": OME_VERSION}
        write_group(spec.url, {"ome": ome}, self._options)

    def write(self, box: Box, voxels_zyx: VoxelArray, mip: int = 0) -> None:
        """Write whole chunks.

        Args:
            box: whole chunks, clipped to the volume.
            voxels_zyx: shape `box.shape`, the image's dtype.
            mip: level.

        Raises:
            OurError: the box is not whole chunks, or the voxels do not fit it.
        """
        shape, chunk = self.spec.shape(mip), self.spec.chunk_zyx
        starts = all(start % size == 0 for start, size in zip(box.start, chunk, strict=True))
        ends = all(stop % size == 0 or stop == end for stop, size, end in zip(box.stop, chunk, shape, strict=True))
        if not (starts and ends and Box.of_shape(shape).contains(box)):
            raise OurError(f"box {box} of mip {mip} of {self.spec.url} is not whole chunks of {chunk} in {shape}")
        if voxels_zyx.shape != box.shape or str(voxels_zyx.dtype) != self.spec.dtype:
            raise OurError(f"writing {box} of {self.spec.url}: voxels are {voxels_zyx.dtype} {voxels_zyx.shape}")
        with store_faults(f"writing box {box} of {self.spec.url}", "write"):
            self._array(mip)[box.slices] = voxels_zyx

    def delete(self) -> None:
        """Remove the image."""
        mips = [str(mip) for mip in range(self.num_mips)]
        delete_tree(self.spec.url, mips, ["zarr.json"], self._options)

    def build_pyramid(self) -> None:
        """Fill every coarser mip from the finer one, chunk by chunk."""
        for mip in range(1, self.num_mips):
            grid, factor = self.grid(mip), self.spec.factors_zyx[mip - 1]
            for index in range(len(grid)):
                box = grid.box(index)
                fine = Box(_times(box.start, factor), _times(box.stop, factor))
                fine = fine.intersection(Box.of_shape(self.spec.shape(mip - 1)))
                with store_faults(f"reading box {fine} of {self.spec.url}"):
                    image = np.asarray(self._array(mip - 1)[fine.slices])
                self.write(box, mean_downsampled(image, factor), mip)

    def _array(self, mip: int) -> zarr.Array[Any]:
        """Open the array of a mip once."""
        with self._lock:
            if mip not in self._arrays:
                self._arrays[mip] = open_array(join(self.spec.url, str(mip)), self._options, writable=True)
            return self._arrays[mip]


def mean_downsampled(image_zyx: VoxelArray, factor: Vector) -> VoxelArray:
    """Average cells of `factor` voxels, rounded to nearest; cells at the far border average what there is."""
    shape = image_zyx.shape
    sums = image_zyx.astype(np.uint64)
    counts = np.ones((1, 1, 1), np.uint64)
    for axis in range(3):
        starts = np.arange(0, shape[axis], factor[axis])
        sums = np.add.reduceat(sums, starts, axis=axis)
        extent = np.minimum(starts + factor[axis], shape[axis]) - starts
        counts = counts * extent.astype(np.uint64).reshape([-1 if other == axis else 1 for other in range(3)])
    averaged: VoxelArray = ((sums + counts // 2) // counts).astype(image_zyx.dtype)
    return averaged


def _times(vector: Vector, factor: Vector) -> Vector:
    """Multiply axis by axis."""
    return vector[0] * factor[0], vector[1] * factor[1], vector[2] * factor[2]
