"""What every readable volume promises, and the part of it that all formats share."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, CorruptData, UserError, VolumeFormatError
from pipeline.geometry import Box, Vector
from pipeline.storage.faults import store_faults

VoxelArray = NDArray[Any]
"""Voxels in zyx order."""
Kind = Literal["image", "labels"]
"""What the voxels mean: grey values (uint8, uint16) or ids (any unsigned type)."""
Nanometers = tuple[float, float, float]
"""Three lengths or positions in nm, zyx."""


@dataclass(frozen=True)
class LevelInfo:
    """One level of a pyramid."""

    path: str
    """Array name below the group (zarr) or scale key (precomputed); empty for formats without levels."""
    shape_zyx: Vector
    """Voxels."""
    voxel_size_zyx_nm: Nanometers | None
    """nm per voxel; None where the metadata does not say."""


@dataclass(frozen=True)
class VolumeInfo:
    """What the metadata of a volume says about the level that is read."""

    url: str
    """Address as given."""
    format: str
    """`ome-zarr`, `zarr`, `precomputed`, `n5`, `slices`, `tiff` or `hdf5`."""
    shape_zyx: Vector
    """Voxels."""
    dtype: np.dtype[Any]
    """Native byte order."""
    chunk_zyx: Vector
    """Smallest piece that can be read without reading more, voxels."""
    voxel_size_zyx_nm: Nanometers | None
    """nm per voxel; None where neither metadata nor caller says."""
    levels: tuple[LevelInfo, ...]
    """All levels, finest first."""
    level: int = 0
    """The level that is read."""
    voxel_offset_zyx: Vector = (0, 0, 0)
    """Where voxel (0, 0, 0) of this object lies in the file's own voxel coordinates (precomputed)."""
    origin_zyx_nm: Nanometers | None = None
    """Lower corner of voxel (0, 0, 0) in the file's own space; None where the file places itself nowhere."""
    axes: tuple[str, ...] = ("z", "y", "x")
    """Axes in stored order."""

    @property
    def shape(self) -> Vector:
        """Voxels, zyx."""
        return self.shape_zyx


class Volume(Protocol):
    """A readable volume. Voxel (0, 0, 0) is the first one stored, whatever the file's own offset."""

    @property
    def info(self) -> VolumeInfo:
        """What the metadata says."""

    def read(self, box: Box) -> VoxelArray:
        """Read the voxels of a box inside the volume, shape `box.shape`."""

    def fingerprint(self) -> str:
        """Identify the data source without reading voxels."""

    def require_voxel_size(self) -> Nanometers:
        """Give the voxel size or say how to supply it."""


class StoredVolume:
    """Base of all formats: checks the box, names faults, identifies the source."""

    def __init__(self, info: VolumeInfo, metadata: bytes) -> None:
        """Keep what the metadata said; `metadata` are the bytes that identify the source."""
        self._info = info
        self._metadata = metadata

    @property
    def info(self) -> VolumeInfo:
        """What the metadata says."""
        return self._info

    def read(self, box: Box) -> VoxelArray:
        """Read the voxels of a box.

        A chunk that does not exist reads as zeros in the chunked formats; one that does not decode is an error.

        Args:
            box: inside the volume.

        Returns:
            Shape `box.shape`, native byte order, writable.

        Raises:
            UserError: the box reaches outside the volume.
            CorruptData: a chunk is damaged or cut short.
            WorldError: the store failed.
        """
        info = self._info
        if not Box.of_shape(info.shape_zyx).contains(box):
            raise UserError(f"box {box} reaches outside {info.url}, which is {Box.of_shape(info.shape_zyx)}")
        if box.is_empty:
            return np.zeros(box.shape, info.dtype)
        with store_faults(f"reading box {box} of {info.url}", contents=CorruptData):
            voxels = self._read(box)
        if voxels.shape != box.shape:
            raise CorruptData(f"box {box} of {info.url} came back with shape {voxels.shape}")
        return np.require(voxels, info.dtype, ["C", "W"])

    @abstractmethod
    def _read(self, box: Box) -> VoxelArray:
        """Read a box that is not empty and lies inside."""

    def fingerprint(self) -> str:
        """Identify the data source: digest of metadata, shape, dtype and level, not of voxels or address."""
        info = self._info
        digest = hashlib.sha256(self._metadata)
        digest.update(repr((info.format, info.shape_zyx, str(info.dtype), info.level)).encode())
        return digest.hexdigest()

    def require_voxel_size(self) -> Nanometers:
        """Give the voxel size in nm, zyx.

        Raises:
            ConfigError: neither the metadata nor the caller gave one.
        """
        if self._info.voxel_size_zyx_nm is None:
            raise ConfigError(
                f"{self._info.url} does not say its voxel size; give it in nm: --voxel-size Z,Y,X, or "
                "image.voxel_size_zyx_nm in the config"
            )
        return self._info.voxel_size_zyx_nm


def readable_dtype(dtype: np.dtype[Any], kind: Kind, url: str) -> np.dtype[Any]:
    """Give the native dtype of a volume that can be used.

    Raises:
        VolumeFormatError: images must be uint8 or uint16, labels unsigned integers.
    """
    native = dtype.newbyteorder("=")
    if kind == "labels" and native.kind == "b":
        return np.dtype(np.uint8)
    if kind == "labels" and native.kind == "u":
        return native
    if native in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return native
    if kind == "labels":
        raise VolumeFormatError(f"{url} holds {dtype}; labels must be unsigned integers, so cast them first")
    raise VolumeFormatError(f"{url} holds {dtype}; images must be uint8 or uint16, so rescale and cast first")


def checked_voxel_size(size: tuple[float, ...] | None, url: str) -> Nanometers | None:
    """Check a voxel size from a user or from metadata.

    Raises:
        ConfigError: not three positive finite numbers.
    """
    if size is None:
        return None
    if len(size) != 3 or not all(math.isfinite(nm) and nm > 0 for nm in size):
        raise ConfigError(f"voxel size {tuple(size)} of {url} must be three lengths above 0: --voxel-size Z,Y,X in nm")
    return float(size[0]), float(size[1]), float(size[2])


def only_level(level: int, url: str) -> None:
    """Refuse a level in a format that has no pyramid.

    Raises:
        ConfigError: the level is not 0.
    """
    if level != 0:
        raise ConfigError(f"level {level} of {url} does not exist: it has no pyramid, only level 0")


def checked_level(level: int, num_levels: int, url: str) -> None:
    """Refuse a level that does not exist.

    Raises:
        ConfigError: the level is negative or too large.
    """
    if not 0 <= level < num_levels:
        raise ConfigError(f"level {level} of {url} does not exist; it has levels 0 to {num_levels - 1}")
