"""Small volumes in the three stored forms that the viewer shows."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

cloudvolume = pytest.importorskip("cloudvolume", reason="cloud-volume is not installed")

SHAPE_ZYX = (13, 61, 83)
VOXEL_SIZE_ZYX_NM = (30.0, 8.0, 8.0)
CHUNK_ZYX = (13, 32, 32)
GREY = 100


@dataclass(frozen=True)
class Volumes:
    """Where the volumes lie, and what is in them."""

    image: Path
    labels: Path
    precomputed: Path
    plain: Path
    sharded_labels: Path
    sharded_precomputed: Path
    packed_shards: Path
    ids_zyx: np.ndarray


def make_ids() -> np.ndarray:
    """Three objects with ids below and above 32 bits; every chunk holds a voxel that is not 0."""
    ids = np.full(SHAPE_ZYX, 7, dtype=np.uint64)
    ids[:, :, 29:53] = 2**40 + 3
    ids[:, 37:, 53:] = 11
    return ids


def write_ome_zarr(path: Path, data: np.ndarray, chunk: tuple[int, ...] = CHUNK_ZYX, shard=None) -> None:
    """Write one level of OME-Zarr 0.5, sharded on wish."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    transform = [{"type": "scale", "scale": list(VOXEL_SIZE_ZYX_NM)}]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transform}], "name": "v"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    array = group.create_array(
        "0", shape=data.shape, chunks=chunk, shards=shard, dtype=data.dtype, dimension_names=["z", "y", "x"]
    )
    array[:] = data


def write_precomputed(path: Path, ids_zyx: np.ndarray, chunk: tuple[int, ...] = CHUNK_ZYX, sharded=False) -> None:
    """Write a precomputed segmentation: chunks that end in `.gz`, or shards."""
    info = cloudvolume.CloudVolume.create_new_info(
        num_channels=1,
        layer_type="segmentation",
        data_type="uint64",
        encoding="compressed_segmentation",
        resolution=[int(size) for size in VOXEL_SIZE_ZYX_NM[::-1]],
        voxel_offset=(0, 0, 0),
        volume_size=SHAPE_ZYX[::-1],
        chunk_size=chunk[::-1],
    )
    volume = cloudvolume.CloudVolume(f"file://{path}", info=info, compress=not sharded, progress=False)
    if sharded:
        volume.image.to_sharded(uncompressed_shard_bytesize=2**22)
    volume.commit_info()
    volume[:] = ids_zyx.transpose(2, 1, 0)[..., None]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    """Write an image of one grey value and the same labels in six ways."""
    import zarr

    folder = tmp_path_factory.mktemp("volumes")
    ids = make_ids()
    names = ("image.zarr", "labels.zarr", "labels", "plain.zarr", "sharded.zarr", "sharded", "packed")
    written = Volumes(*(folder / name for name in names), ids)
    write_ome_zarr(written.image, np.full(SHAPE_ZYX, GREY, dtype=np.uint8))
    write_ome_zarr(written.labels, ids)
    write_ome_zarr(written.sharded_labels, ids, chunk=(13, 16, 16), shard=(13, 64, 96))
    write_precomputed(written.precomputed, ids)
    write_precomputed(written.sharded_precomputed, ids, chunk=(16, 16, 16), sharded=True)
    write_precomputed(written.packed_shards, ids, chunk=(16, 16, 16), sharded=True)
    for shard in written.packed_shards.glob("*/*.shard"):  # as cloud-volume does when told to compress
        shard.with_name(f"{shard.name}.gz").write_bytes(gzip.compress(shard.read_bytes()))
        shard.unlink()
    plain = zarr.create_array(str(written.plain), shape=SHAPE_ZYX, chunks=CHUNK_ZYX, dtype="uint64", zarr_format=2)
    plain[:] = ids
    return written
