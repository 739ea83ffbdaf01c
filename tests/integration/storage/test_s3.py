"""Every kind of input and output on an S3 endpoint, and its faults."""

import io
import threading

import fsspec
import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.errors import ConfigError, CorruptData, StoreUnavailable, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import (
    ImageSpec,
    ImageWriter,
    LabelVolumeSpec,
    ObjectStore,
    ScratchArray,
    ScratchSpec,
    StorageOptions,
    label_writer,
    open_volume,
)

SHAPE = (11, 23, 37)
WHOLE = Box.of_shape(SHAPE)
IMAGE = np.random.default_rng(3).integers(1, 255, SHAPE).astype(np.uint8)


def filesystem(options):
    return fsspec.filesystem("s3", **options.fsspec_options("s3"))


@pytest.mark.parametrize("label_format", ["ome-zarr", "precomputed"])
@pytest.mark.parametrize("shard", [None, (8, 16, 32)])
def test_labels_are_written_read_verified_and_deleted(s3, label_format, shard):
    url, options = s3
    spec = LabelVolumeSpec(f"{url}/seg", SHAPE, (30.0, 8.0, 8.0), (4, 8, 16), shard, ((1, 2, 2),))
    labels = IMAGE.astype(np.uint64) << np.uint64(40)
    labels[:8, :16, :32] = 0
    writer = label_writer(label_format, spec, options)
    writer.create()
    records = writer.write(0, WHOLE, labels)
    np.testing.assert_array_equal(label_writer(label_format, spec, options).read(0, WHOLE), labels)
    np.testing.assert_array_equal(open_volume(spec.url, options, kind="labels").read(WHOLE), labels)
    assert records[0].crc32c is None
    for record in records:
        writer.verify_unit(0, record)
    filesystem(options).pipe_file("volumes/neighbor", b"stays")
    writer.delete()
    assert ObjectStore("s3://volumes", options).exists("neighbor")
    with pytest.raises(VolumeNotFound):
        open_volume(spec.url, options, kind="labels")


def test_image_and_scratch(s3):
    url, options = s3
    spec = ImageSpec(f"{url}/em.zarr", SHAPE, "uint8", (30.0, 8.0, 8.0), (4, 8, 16), ((1, 2, 2),))
    writer = ImageWriter(spec, options)
    writer.create()
    writer.write(WHOLE, IMAGE)
    writer.build_pyramid()
    np.testing.assert_array_equal(open_volume(spec.url, options).read(WHOLE), IMAGE)
    assert open_volume(spec.url, options, level=1).info.shape_zyx == (11, 12, 19)
    assert open_volume(f"{spec.url}/1", options).require_voxel_size() == (30.0, 16.0, 16.0)
    scratch = ScratchArray(ScratchSpec(f"{url}/p", SHAPE, (4, 8, 16), "uint8", 2), options)
    scratch.create()
    scratch.write(WHOLE, np.stack([IMAGE, IMAGE]))
    np.testing.assert_array_equal(scratch.read(Box((1, 2, 3), (5, 7, 9)))[1], IMAGE[1:5, 2:7, 3:9])
    scratch.delete()


def test_slices_tiff_and_hdf5(s3):
    url, options = s3
    fs = filesystem(options)
    base = url.removeprefix("s3://")
    for z, slice_yx in enumerate(IMAGE):
        data = io.BytesIO()
        Image.fromarray(slice_yx).save(data, "png")
        fs.pipe_file(f"{base}/slices/z{z}.png", data.getvalue())
    stack, hdf5 = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(stack, IMAGE, photometric="minisblack")
    fs.pipe_file(f"{base}/stack.tif", stack.getvalue())
    with h5py.File(hdf5, "w") as file:
        file["raw"] = IMAGE
    fs.pipe_file(f"{base}/stack.h5", hdf5.getvalue())
    for name in ("slices", "stack.tif", "stack.h5:raw"):
        np.testing.assert_array_equal(open_volume(f"{url}/{name}", options).read(WHOLE), IMAGE)


def test_objects_and_one_winner(s3):
    url, options = s3
    store = ObjectStore(url, options)
    store.put("a/b", b"1")
    assert store.get("a/b") == b"1"
    assert store.exists("a/b")
    wins = []

    def race(number):
        if ObjectStore(url, options).put_if_absent("lease", str(number).encode()):
            wins.append(number)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.get("lease") == str(wins[0]).encode()
    store.delete_prefix("a")
    store.delete("a/b")
    assert not store.exists("a/b")
    with pytest.raises(VolumeNotFound, match="a/b"):
        store.get("a/b")


def test_missing_bucket_and_missing_volume(s3):
    url, options = s3
    for address in (f"{url}/nothing.zarr", "s3://no-such-bucket/em.zarr"):
        with pytest.raises(VolumeNotFound, match=r"em|nothing"):
            open_volume(address, options)


def test_truncated_chunk_is_corrupt(s3):
    url, options = s3
    writer = ImageWriter(ImageSpec(f"{url}/em.zarr", SHAPE, "uint8", (9.0, 9.0, 9.0), (4, 8, 16)), options)
    writer.create()
    writer.write(WHOLE, IMAGE)
    fs, key = filesystem(options), f"{url.removeprefix('s3://')}/em.zarr/0/c/0/0/0"
    fs.pipe_file(key, fs.cat_file(key)[:-9])
    with pytest.raises(CorruptData, match="0:11,0:23,0:37"):
        open_volume(f"{url}/em.zarr", options).read(WHOLE)


def test_a_server_that_is_not_there_is_unavailable_and_worth_a_retry(s3):
    url, _ = s3
    options = StorageOptions(endpoint_url="http://127.0.0.1:9", region="us-east-1")
    with pytest.raises(StoreUnavailable, match="did not answer") as caught:
        ObjectStore(url, options).get("a")
    assert caught.value.retry


def test_precomputed_needs_credentials_on_s3(s3):
    url, options = s3
    anonymous = StorageOptions(endpoint_url=options.endpoint_url, credentials="anonymous")
    spec = LabelVolumeSpec(f"{url}/seg", SHAPE, (30.0, 8.0, 8.0), (4, 8, 16))
    with pytest.raises(ConfigError, match="credentials"):
        label_writer("precomputed", spec, anonymous).create()
