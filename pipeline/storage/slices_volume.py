"""A folder of PNG or TIFF slices, in natural order: slice_2 before slice_10."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from pipeline.errors import CorruptData, VolumeFormatError
from pipeline.geometry import Box
from pipeline.storage.faults import store_faults
from pipeline.storage.options import StorageOptions
from pipeline.storage.tiff_volume import read_tiff_slice
from pipeline.storage.volume import (
    Kind,
    LevelInfo,
    Nanometers,
    StoredVolume,
    VolumeInfo,
    VoxelArray,
    checked_voxel_size,
    only_level,
    readable_dtype,
)

_SUFFIXES = (".png", ".tif", ".tiff")
# Grey modes of Pillow; colors and palettes have other letters.
_GREY_MODES = ("1", "L", "I;16", "I;16B", "I")
_COLOR_MODES = ("RGB", "RGBA")


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which numbers inside names count as numbers."""
    parts = re.split(r"([0-9]+)", name.lower())
    keys = [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
    return (*keys, (2, 0, name))


class SlicesVolume(StoredVolume):
    """One file per z."""

    def __init__(self, info: VolumeInfo, metadata: bytes, fs: Any, paths: tuple[str, ...]) -> None:
        """Keep the file system and the slices' paths in z order."""
        super().__init__(info, metadata)
        self._fs = fs
        self._paths = paths

    def _read(self, box: Box) -> VoxelArray:
        """Decode one slice after the other."""
        voxels = np.empty(box.shape, self._info.dtype)
        for index, z in enumerate(range(box.start[0], box.stop[0])):
            slice_yx = self._slice(z)
            voxels[index] = slice_yx[box.slices[1], box.slices[2]]
        return voxels

    def _slice(self, z: int) -> VoxelArray:
        """Decode slice z and check that it looks like the first."""
        path = self._paths[z]
        with store_faults(f"reading slice {path}", contents=CorruptData):
            slice_yx = decode_slice(path, self._fs.cat_file(path))
        expected = self._info.shape_zyx[1:]
        if slice_yx.shape != expected or slice_yx.dtype.newbyteorder("=") != self._info.dtype:
            raise VolumeFormatError(
                f"slice {path} is {slice_yx.dtype} {slice_yx.shape}, but the first slice of the folder is "
                f"{self._info.dtype} {expected}; all slices must be alike"
            )
        return slice_yx


def decode_slice(path: str, data: bytes) -> VoxelArray:
    """Decode one PNG or TIFF file to (y, x); one saved in color whose channels are all the same is grey.

    Raises:
        VolumeFormatError: it has colors.
    """
    if path.lower().endswith(".png"):
        # The class itself, because Image.open takes a large EM slice for an attack (MAX_IMAGE_PIXELS).
        with PngImageFile(io.BytesIO(data)) as png:
            if png.mode not in (*_GREY_MODES, *_COLOR_MODES):
                raise VolumeFormatError(f"slice {path} has mode {png.mode}; slices must be grey, 8 or 16 bits")
            slice_yx: VoxelArray = _grey_of(np.asarray(png)) if png.mode in _COLOR_MODES else np.asarray(png)
    else:
        slice_yx = read_tiff_slice(io.BytesIO(data))
    if slice_yx.dtype == np.int32 and path.lower().endswith(".png"):
        slice_yx = slice_yx.astype(np.uint16)  # Pillow before 11.3 opens 16-bit grey as 32-bit I
    if slice_yx.ndim != 2:
        raise VolumeFormatError(f"slice {path} has shape {slice_yx.shape}; slices must be grey, with y and x only")
    return slice_yx


def _grey_of(color_yxc: VoxelArray) -> VoxelArray:
    """Take the first channel where red, green and blue are the same; else give back what came."""
    grey_yx = color_yxc[..., 0]
    return grey_yx if (color_yxc[..., :3] == grey_yx[..., None]).all() else color_yxc


def list_slices(fs: Any, path: str) -> tuple[tuple[str, int], ...]:
    """List a folder once: paths and sizes of its slices in natural order; empty where there are none."""
    with store_faults(f"listing {path}"):
        entries = fs.ls(path, detail=True)
    files = [
        (str(entry["name"]), int(entry.get("size") or 0))
        for entry in entries
        if entry["type"] == "file" and str(entry["name"]).lower().endswith(_SUFFIXES)
    ]
    return tuple(sorted(files, key=lambda file: natural_key(file[0])))


def open_slices_volume(
    url: str,
    files: tuple[tuple[str, int], ...],
    fs: Any,
    options: StorageOptions,
    *,
    voxel_size_zyx_nm: Nanometers | None,
    level: int,
    kind: Kind,
) -> SlicesVolume:
    """Open a folder whose slices are listed.

    Raises:
        VolumeFormatError: PNG and TIFF are mixed, or the first slice cannot be used.
    """
    only_level(level, url)
    paths = tuple(path for path, _ in files)
    kinds = {path.lower().endswith(".png") for path in paths}
    if len(kinds) > 1:
        raise VolumeFormatError(f"{url} holds PNG and TIFF files; a volume needs slices of one format")
    with store_faults(f"reading slice {paths[0]}", contents=CorruptData):
        first = decode_slice(paths[0], fs.cat_file(paths[0]))
    shape = (len(paths), int(first.shape[0]), int(first.shape[1]))
    size = checked_voxel_size(voxel_size_zyx_nm, url)
    info = VolumeInfo(
        url=url,
        format="slices",
        shape_zyx=shape,
        dtype=readable_dtype(first.dtype, kind, url),
        chunk_zyx=(1, shape[1], shape[2]),
        voxel_size_zyx_nm=size,
        levels=(LevelInfo("", shape, size),),
    )
    listing = hashlib.sha256()
    for path, num_bytes in files:
        listing.update(f"{path.rpartition('/')[2]}:{num_bytes}\n".encode())
    return SlicesVolume(info, listing.digest(), fs, paths)
