"""One factory per readable format: all write the same voxels, with primes as sizes."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from cloudvolume import CloudVolume
from PIL import Image

SHAPE = (11, 23, 37)
CHUNK = (4, 8, 16)
VOXEL_SIZE = (30.0, 8.0, 6.0)


def grey(dtype="uint8", shape=SHAPE):
    """Make an image in which no two axes can be swapped unseen and no chunk is all zeros."""
    values = np.random.default_rng(5).integers(1, np.iinfo(dtype).max, shape)
    return values.astype(dtype)


@dataclass(frozen=True)
class Format:
    """How to write one format and where its bytes lie."""

    name: str
    write: Callable[[Path, np.ndarray], str]
    """Writes and gives the URL."""
    damage: Callable[[Path], Path] | None
    """Gives the file whose loss of bytes must be noticed."""
    has_voxel_size: bool = True


def ome_axes(version_units="nanometer"):
    return [{"name": n, "type": "space", "unit": version_units} for n in "zyx"]


def multiscales(paths, axes=None, size=VOXEL_SIZE):
    datasets = [
        {
            "path": path,
            "coordinateTransformations": [{"type": "scale", "scale": [size[0], size[1] * 2**k, size[2] * 2**k]}],
        }
        for k, path in enumerate(paths)
    ]
    return [{"name": "em", "axes": axes or ome_axes(), "datasets": datasets}]


def write_ome(folder, image, zarr_format=3, **arguments):
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
    for k, path in enumerate(("0", "1")):
        level = image[:, :: 2**k, :: 2**k]
        array = group.create_array(path, shape=level.shape, chunks=CHUNK, dtype=level.dtype, **arguments)
        array[:] = level
    scales = multiscales(("0", "1"))
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    else:
        group.attrs["multiscales"] = [scales[0] | {"version": "0.4"}]
    return str(folder)


def write_zarr(folder, image, **arguments):
    array = zarr.create_array(folder, shape=image.shape, dtype=image.dtype, overwrite=True, **arguments)
    array[:] = image
    array.attrs["resolution"] = list(VOXEL_SIZE)
    return str(folder)


def write_precomputed(folder, image, sharded=False, encoding="raw", compress="gzip"):
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="image",
        data_type=str(image.dtype),
        encoding=encoding,
        resolution=VOXEL_SIZE[::-1],
        voxel_offset=(7, 5, 3),
        chunk_size=CHUNK[::-1],
        volume_size=image.shape[::-1],
    )
    volume = CloudVolume(f"file://{folder}", info=info, progress=False, compress=compress)
    volume.commit_info()
    start = np.array([7, 5, 3])
    if not sharded:
        volume[:, :, :] = image.T[..., None]
        return str(folder)
    volume.scale["sharding"] = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 1,
        "minishard_bits": 1,
        "shard_bits": 4,
        "hash": "identity",
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
    volume.commit_info()
    step = np.array(volume.image.shard_shape(0)).astype(int)
    size = np.array(image.shape[::-1])
    for corner in np.ndindex(*np.ceil(size / step).astype(int)):
        low = np.array(corner) * step
        high = np.minimum(low + step, size)
        part = image.T[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        volume.image.upload(np.asfortranarray(part)[..., None], start + low, 0)
    return str(folder)


def write_slices(folder, image, suffix=".png"):
    folder.mkdir()
    for z, slice_yx in enumerate(image):
        path = folder / f"slice_{z}{suffix}"
        if suffix == ".png":
            Image.fromarray(slice_yx).save(path)
        else:
            tifffile.imwrite(path, slice_yx)
    return str(folder)


def write_tiff(folder, image, **arguments):
    folder.mkdir()
    path = folder / "stack.tif"
    tifffile.imwrite(path, image, photometric="minisblack", **arguments)
    return str(path)


def write_hdf5(folder, image, **arguments):
    folder.mkdir()
    with h5py.File(folder / "stack.h5", "w") as file:
        dataset = file.create_dataset("volumes/raw", data=image, **arguments)
        dataset.attrs["resolution"] = VOXEL_SIZE
    return f"{folder / 'stack.h5'}:volumes/raw"


def first(pattern):
    """Find the first file of a volume's folder that matches a pattern."""
    return lambda folder: sorted(path for path in folder.glob(pattern) if path.is_file())[0]


IMAGEJ = {
    "imagej": True,
    "resolution": (1000 / VOXEL_SIZE[2], 1000 / VOXEL_SIZE[1]),
    "metadata": {"axes": "ZYX", "spacing": VOXEL_SIZE[0] / 1000, "unit": "um"},
}
OME_TIFF = {
    "ome": True,
    "metadata": {
        "axes": "ZYX",
        **{
            f"PhysicalSize{a}{u}": v
            for a, nm in zip("ZYX", VOXEL_SIZE, strict=True)
            for u, v in (("", nm / 1000), ("Unit", "µm"))
        },
    },
}

FORMATS = (
    Format("ome-zarr-0.5", write_ome, first("0/c/0/0/0")),
    Format("ome-zarr-0.5-sharded", lambda p, i: write_ome(p, i, shards=(8, 16, 32)), first("0/c/0/0/0")),
    Format("ome-zarr-0.4", lambda p, i: write_ome(p, i, 2), first("0/0.0.0")),
    Format("ome-zarr-array", lambda p, i: write_ome(p, i) + "/0", first("0/c/0/0/0")),
    Format("zarr-v3", lambda p, i: write_zarr(p, i, chunks=CHUNK), first("c/0/0/0")),
    Format("zarr-v3-raw", lambda p, i: write_zarr(p, i, chunks=CHUNK, compressors=None), first("c/0/0/0")),
    Format("zarr-v2", lambda p, i: write_zarr(p, i, chunks=CHUNK, zarr_format=2), first("0.0.0")),
    Format("precomputed", write_precomputed, first("6*/*")),
    Format("precomputed-plain", lambda p, i: write_precomputed(p, i, compress=False), first("6*/*")),
    Format("precomputed-sharded", lambda p, i: write_precomputed(p, i, True, compress=False), first("6*/*.shard")),
    Format("png", write_slices, first("slice_0.png"), False),
    Format("tiff-slices", lambda p, i: write_slices(p, i, ".tif"), first("slice_0.tif"), False),
    Format("tiff", write_tiff, first("stack.tif"), False),
    Format("tiff-deflate", lambda p, i: write_tiff(p, i, compression="zlib"), first("stack.tif"), False),
    Format("tiff-imagej", lambda p, i: write_tiff(p, i, **IMAGEJ), first("stack.tif")),
    Format("tiff-ome", lambda p, i: write_tiff(p, i, **OME_TIFF), first("stack.tif")),
    Format("hdf5", lambda p, i: write_hdf5(p, i, chunks=CHUNK, compression="gzip"), first("stack.h5")),
    Format("hdf5-contiguous", write_hdf5, first("stack.h5")),
)


@pytest.fixture(params=FORMATS, ids=lambda f: f.name)
def volume_format(request):
    """Every readable format in turn."""
    return request.param


@pytest.fixture
def write_json():
    """Write a JSON file."""

    def write(path, document):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))

    return write
