"""Neuroglancer precomputed through cloud-volume. The only file of sam4em in which xyz exists.

Arrays leave and enter as zyx with voxel (0, 0, 0) first, whatever `voxel_offset` says.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any

import cloudfiles.paths
import numpy as np
from cloudfiles import CloudFiles
from cloudvolume import Bbox, CloudVolume
from cloudvolume.datasource.precomputed.image.common import chunknames
from cloudvolume.datasource.precomputed.sharding import image_shard_shape_from_spec
from cloudvolume.exceptions import EmptyVolumeException

from pipeline.errors import CorruptData, VolumeFormatError
from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import local_path, scheme_of
from pipeline.storage.objects import ObjectStore
from pipeline.storage.options import StorageOptions
from pipeline.storage.volume import (
    Kind,
    LevelInfo,
    Nanometers,
    StoredVolume,
    VolumeInfo,
    VoxelArray,
    checked_level,
    checked_voxel_size,
    readable_dtype,
)


def to_cloud_path(url: str, options: StorageOptions) -> str:
    """Give the address by which cloud-files knows a URL.

    An S3-compatible endpoint becomes an alias of cloud-files, named by the endpoint's digest so that
    registering it twice changes nothing.
    """
    path = local_path(url)
    if path is not None:
        return f"file://{path}"
    scheme = scheme_of(url)
    if scheme == "memory":
        return "mem://" + url.removeprefix("memory://").lstrip("/")
    if scheme == "s3" and options.endpoint_url:
        alias = "sam4em" + hashlib.sha256(options.endpoint_url.encode()).hexdigest()[:12]
        if alias not in cloudfiles.paths.ALIASES:
            cloudfiles.paths.add_alias(alias, f"s3://{options.endpoint_url.rstrip('/')}/")
        return f"{alias}://" + url.removeprefix("s3://")
    return url


def cloud_files(url: str, options: StorageOptions) -> CloudFiles:
    """Give the small-file door of cloud-files for a URL."""
    secrets = options.cloudfiles_secrets(scheme_of(url))
    return CloudFiles(to_cloud_path(url, options), progress=False, secrets=secrets)


def read_info(url: str, options: StorageOptions) -> bytes | None:
    """Read the `info` file; None where there is none."""
    return read_file(url, options, "info")


def read_file(url: str, options: StorageOptions, key: str) -> bytes | None:
    """Read a small file of a precomputed volume whole; None where there is none."""
    with store_faults(f"reading {url}/{key}"):
        found: bytes | None = cloud_files(url, options).get(key)
    return found


def put_file(url: str, options: StorageOptions, key: str, data: bytes) -> None:
    """Write a small file of a precomputed volume whole, uncompressed, so that every server can give it.

    Raises:
        WorldError: the store failed.
    """
    if scheme_of(url) != "memory":
        ObjectStore(url, options).put(key, data)
        return
    with store_faults(f"writing {url}/{key}", "write"):
        cloud_files(url, options).put(key, data, compress=None)


class PrecomputedScales:
    """All scales of one precomputed volume, seen in zyx."""

    def __init__(self, url: str, options: StorageOptions, info: dict[str, Any], *, trust_gaps: bool = False) -> None:
        """Wrap a volume whose `info` is known; no request is made.

        Args:
            url: of the volume.
            options: how to reach it.
            info: parsed.
            trust_gaps: take files without bytes for missing ones, which saves a request per missing chunk;
                for volumes whose checksums are known.
        """
        self.url = url
        self._options = options
        self._info = info
        self._cloud = self._open(fill_missing=trust_gaps)
        self._filled = self._cloud if trust_gaps else self._open(fill_missing=True)

    def _open(self, *, fill_missing: bool) -> CloudVolume:
        """Open without a request."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return CloudVolume(
                "precomputed://" + to_cloud_path(self.url, self._options),
                info=self._info,
                progress=False,
                bounded=True,
                fill_missing=fill_missing,
                delete_black_uploads=True,
                non_aligned_writes=False,
                compress=None,
                cdn_cache="no-cache",
                secrets=self._options.cloudfiles_secrets(scheme_of(self.url)),
                cache=False,
            )

    @property
    def num_scales(self) -> int:
        """How many mips there are."""
        return len(self._cloud.info["scales"])

    def key(self, mip: int) -> str:
        """Folder of a scale below the volume."""
        return str(self._cloud.meta.key(mip))

    def shape_zyx(self, mip: int) -> Vector:
        """Voxels of a scale."""
        return _reversed_integers(self._cloud.meta.volume_size(mip))

    def chunk_zyx(self, mip: int) -> Vector:
        """Chunk of a scale, voxels."""
        return _reversed_integers(self._cloud.meta.chunk_size(mip))

    def offset_zyx(self, mip: int) -> Vector:
        """`voxel_offset` of a scale."""
        return _reversed_integers(self._cloud.meta.voxel_offset(mip))

    def voxel_size_zyx_nm(self, mip: int) -> tuple[float, ...]:
        """Voxel size of a scale in nm."""
        return tuple(float(nm) for nm in reversed(list(self._cloud.info["scales"][mip]["resolution"])))

    def read(self, mip: int, box: Box) -> VoxelArray:
        """Read a box; a chunk that does not exist is zeros, one that is empty or broken an error.

        Raises:
            CorruptData: a chunk has no bytes.
        """
        bounds = self._bounds(mip, box)
        try:
            cutout = self._cloud.image.download(bounds, mip, parallel=1)
        except EmptyVolumeException:
            self._refuse_empty_files(mip, bounds, box)
            cutout = self._filled.image.download(bounds, mip, parallel=1)
        return np.asarray(cutout)[..., 0].T

    def write(self, mip: int, box: Box, voxels_zyx: VoxelArray) -> None:
        """Write a box of whole write units; chunks and shards of zeros only are deleted."""
        start = self._bounds(mip, box).minpt
        self._cloud.image.upload(np.ascontiguousarray(voxels_zyx).T[..., np.newaxis], start, mip, parallel=1)

    def _bounds(self, mip: int, box: Box) -> Bbox:
        """Turn a zyx box from 0 into an xyz box in the file's coordinates."""
        offset = self.offset_zyx(mip)
        moved = box.shifted(offset)
        return Bbox(moved.start[::-1], moved.stop[::-1], dtype=np.int64)

    def _refuse_empty_files(self, mip: int, bounds: Bbox, box: Box) -> None:
        """Tell a file that is missing from one that was cut to nothing; cloud-volume does not."""
        files = cloud_files(self.url, self._options)
        for name in self._file_names(mip, bounds, box):
            head = files.head(name)
            if head is not None and head["Content-Length"] == 0:
                raise CorruptData(f"file {name} of {self.url}, in box {box}, has no bytes")

    def _file_names(self, mip: int, bounds: Bbox, box: Box) -> Iterator[str]:
        """Name the chunk or shard files that hold a box."""
        meta, image = self._cloud.meta, self._cloud.image
        if not image.is_sharded(mip):
            whole = bounds.expand_to_chunk_size(meta.chunk_size(mip), meta.voxel_offset(mip))
            whole = Bbox.clamp(whole, meta.bounds(mip))
            yield from chunknames(
                whole, meta.bounds(mip), self.key(mip), meta.chunk_size(mip), protocol=meta.path.protocol
            )
            return
        grid = BlockGrid(Box.of_shape(self.shape_zyx(mip)), _reversed_integers(image.shard_shape(mip)))
        for index in grid.touched_by(box):
            yield f"{self.key(mip)}/{image.shard_filename(self._bounds(mip, grid.box(index)), mip)}"


class PrecomputedVolume(StoredVolume):
    """One mip of a precomputed volume."""

    def __init__(self, info: VolumeInfo, metadata: bytes, scales: PrecomputedScales) -> None:
        """Wrap the scales."""
        super().__init__(info, metadata)
        self._scales = scales

    def _read(self, box: Box) -> VoxelArray:
        """Read through cloud-volume."""
        return self._scales.read(self._info.level, box)


def open_precomputed_volume(
    url: str, options: StorageOptions, *, voxel_size_zyx_nm: Nanometers | None, level: int, kind: Kind, raw: bytes
) -> PrecomputedVolume:
    """Open one mip from the bytes of `info`.

    Raises:
        VolumeFormatError: `info` is not that of an image or segmentation, or it has several channels.
        ConfigError: the mip does not exist.
    """
    info = _parsed_info(url, raw)
    checked_level(level, len(info["scales"]), url)
    dtype = readable_dtype(np.dtype(info["data_type"]), kind, url)
    with store_faults(f"opening {url}", contents=VolumeFormatError):
        scales = PrecomputedScales(url, options, info)
        levels = [_level(scales, mip, voxel_size_zyx_nm) for mip in range(scales.num_scales)]
    size, offset = levels[level].voxel_size_zyx_nm, scales.offset_zyx(level)
    return PrecomputedVolume(
        VolumeInfo(
            url=url,
            format="precomputed",
            shape_zyx=levels[level].shape_zyx,
            dtype=dtype,
            chunk_zyx=scales.chunk_zyx(level),
            voxel_size_zyx_nm=size,
            levels=tuple(levels),
            level=level,
            voxel_offset_zyx=offset,
            origin_zyx_nm=None if size is None else (offset[0] * size[0], offset[1] * size[1], offset[2] * size[2]),
            axes=("x", "y", "z"),
        ),
        json.dumps(info, sort_keys=True).encode(),
        scales,
    )


def _level(scales: PrecomputedScales, mip: int, given: Nanometers | None) -> LevelInfo:
    """Describe one mip; a voxel size that the caller gives is that of mip 0."""
    own = scales.voxel_size_zyx_nm(mip)
    base = checked_voxel_size(given, scales.url)
    if base is not None:
        finest = scales.voxel_size_zyx_nm(0)
        own = tuple(nm * size / first for nm, size, first in zip(base, own, finest, strict=True))
    return LevelInfo(scales.key(mip), scales.shape_zyx(mip), checked_voxel_size(own, scales.url))


def _parsed_info(url: str, raw: bytes) -> dict[str, Any]:
    """Parse `info` and check that it is a volume with one channel."""
    try:
        info = json.loads(raw)
    except ValueError as error:
        raise VolumeFormatError(f"{url}/info is not JSON ({error})") from error
    if not isinstance(info, dict) or not info.get("scales") or "data_type" not in info:
        raise VolumeFormatError(f"{url}/info does not describe a precomputed volume: no scales or no data_type")
    if info.get("num_channels", 1) != 1:
        raise VolumeFormatError(f"{url} has {info['num_channels']} channels; only one is possible")
    return info


def segmentation_info(
    levels: list[tuple[Vector, Nanometers, Vector]], chunk_zyx: Vector, sharding: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """Write the `info` of a uint64 segmentation.

    Args:
        levels: shape, voxel size and voxel offset per mip, zyx.
        chunk_zyx: chunk of every mip, voxels.
        sharding: sharding specification per mip, or None.
    """
    scales = []
    for mip, (shape, size, offset) in enumerate(levels):
        scale: dict[str, Any] = {
            "key": f"mip{mip}",
            "size": list(shape[::-1]),
            "resolution": list(size[::-1]),
            "voxel_offset": list(offset[::-1]),
            "chunk_sizes": [list(chunk_zyx[::-1])],
            "encoding": "compressed_segmentation",
            "compressed_segmentation_block_size": [8, 8, 8],
        }
        if sharding is not None:
            scale["sharding"] = sharding[mip]
        scales.append(scale)
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "segmentation",
        "data_type": "uint64",
        "num_channels": 1,
        "scales": scales,
    }


def _reversed_integers(values: Any) -> Vector:
    """Turn an xyz triple into zyx integers."""
    x, y, z = (int(value) for value in values)
    return z, y, x


def shard_shape_zyx(sharding: dict[str, Any], shape_zyx: Vector, chunk_zyx: Vector) -> Vector:
    """Give the voxels of one shard under a sharding specification."""
    return _reversed_integers(image_shard_shape_from_spec(sharding, shape_zyx[::-1], chunk_zyx[::-1]))
