"""What is particular to zarr: groups, parents, axes, missing chunks."""

import numpy as np
import pytest
import zarr

from pipeline.errors import ConfigError, VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import open_volume

SHAPE = (5, 7, 11)
IMAGE = np.random.default_rng(0).integers(1, 255, SHAPE).astype(np.uint8)
WHOLE = Box.of_shape(SHAPE)


def dataset(path, *size):
    return {"path": path, "coordinateTransformations": [{"type": "scale", "scale": list(size)}]}


def axes(names="zyx", unit="nanometer"):
    return [{"name": n, "type": "space", "unit": unit} if n in "zyx" else {"name": n} for n in names]


def put(root, path, image, names="zyx", zarr_format=3, **more):
    group = zarr.open_group(root, mode="a", path=path, zarr_format=zarr_format)
    array = group.create_array("0", shape=image.shape, chunks=image.shape, dtype=image.dtype, **more)
    array[:] = image
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes(names), "datasets": [dataset("0", *[4.0] * len(names))]}],
    }


def test_a_group_with_one_image_is_as_good_as_its_array(tmp_path):
    put(tmp_path / "em.zarr", "raw", IMAGE)
    for address in ("em.zarr/raw", "em.zarr/raw/0", "em.zarr"):
        volume = open_volume(str(tmp_path / address))
        np.testing.assert_array_equal(volume.read(WHOLE), IMAGE)
        assert volume.require_voxel_size() == (4.0, 4.0, 4.0)
        assert volume.info.format == "ome-zarr"


def test_several_images_are_listed(tmp_path):
    for name in ("raw", "truth"):
        put(tmp_path / "em.zarr", name, IMAGE)
    with pytest.raises(VolumeFormatError, match="raw, truth"):
        open_volume(str(tmp_path / "em.zarr"))


def test_several_multiscales_in_one_group_are_listed(tmp_path):
    put(tmp_path / "em.zarr", "raw", IMAGE)
    group = zarr.open_group(tmp_path / "em.zarr", path="raw")
    one = group.attrs["ome"]["multiscales"][0]
    group.attrs["ome"] = {"multiscales": [one | {"name": "a"}, one | {"name": "b"}]}
    with pytest.raises(VolumeFormatError, match="a at 0, b at 0"):
        open_volume(str(tmp_path / "em.zarr" / "raw"))


def test_an_empty_group_says_what_it_holds(tmp_path):
    zarr.open_group(tmp_path / "em.zarr", mode="w").create_group("inner")
    with pytest.raises(VolumeFormatError, match="it holds: inner"):
        open_volume(str(tmp_path / "em.zarr"))


def test_singleton_channels_and_stored_order(tmp_path):
    put(tmp_path / "a", "tc", IMAGE[None, None], "tczyx")
    np.testing.assert_array_equal(open_volume(str(tmp_path / "a")).read(WHOLE), IMAGE)
    put(tmp_path / "b", "xyz", IMAGE.T, "xyz")
    volume = open_volume(str(tmp_path / "b"))
    np.testing.assert_array_equal(volume.read(WHOLE), IMAGE)
    assert volume.info.axes == ("x", "y", "z")
    put(tmp_path / "c", "two", np.stack([IMAGE, IMAGE]), "czyx")
    with pytest.raises(VolumeFormatError, match="axis 'c'"):
        open_volume(str(tmp_path / "c"))
    put(tmp_path / "d", "flat", IMAGE[0], "yx")
    with pytest.raises(VolumeFormatError, match="z, y and x"):
        open_volume(str(tmp_path / "d"))


def test_dimension_names_of_plain_arrays(tmp_path):
    array = zarr.create_array(tmp_path / "a", data=IMAGE.T.copy(), dimension_names=["x", "y", "z"])
    assert array.shape == SHAPE[::-1]
    np.testing.assert_array_equal(open_volume(str(tmp_path / "a")).read(WHOLE), IMAGE)
    array = zarr.create_array(tmp_path / "b", data=IMAGE.T.copy(), zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = ["x", "y", "z"]
    np.testing.assert_array_equal(open_volume(str(tmp_path / "b")).read(WHOLE), IMAGE)


def test_a_given_voxel_size_scales_with_the_level(tmp_path):
    group = zarr.open_group(tmp_path / "em", mode="w")
    for k in (0, 1):
        group.create_array(str(k), data=IMAGE[:, :: 2**k, :: 2**k].copy())
    sizes = [dataset("0", 1.0, 1.0, 1.0), dataset("1", 1.0, 2.0, 2.0)]
    group.attrs["ome"] = {"multiscales": [{"axes": axes(unit=None), "datasets": sizes}]}
    volume = open_volume(str(tmp_path / "em"), level=1, voxel_size_zyx_nm=(30.0, 8.0, 8.0))
    assert volume.require_voxel_size() == (30.0, 16.0, 16.0)
    np.testing.assert_array_equal(volume.read(Box((0, 0, 0), (5, 4, 6))), IMAGE[:, ::2, ::2])
    with pytest.raises(ConfigError, match="--voxel-size"):
        open_volume(str(tmp_path / "em")).require_voxel_size()


def test_a_missing_chunk_reads_as_zeros(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=SHAPE, chunks=(5, 7, 6), dtype="uint8")
    array[:] = IMAGE
    (tmp_path / "a" / "c" / "0" / "0" / "0").unlink()
    voxels = open_volume(str(tmp_path / "a")).read(WHOLE)
    assert not voxels[:, :, :6].any()
    np.testing.assert_array_equal(voxels[:, :, 6:], IMAGE[:, :, 6:])


def test_dangling_dataset_and_broken_metadata(tmp_path):
    group = zarr.open_group(tmp_path / "em", mode="w")
    group.attrs["ome"] = {"multiscales": [{"axes": axes(), "datasets": [dataset("0", 1, 1, 1)]}]}
    with pytest.raises(VolumeNotFound, match="em/0"):
        open_volume(str(tmp_path / "em"))
    (tmp_path / "bad").mkdir()
    for text in ("{", "[]", '{"node_type": "array", "zarr_format": 3}'):
        (tmp_path / "bad" / "zarr.json").write_text(text)
        with pytest.raises(VolumeFormatError, match="bad"):
            open_volume(str(tmp_path / "bad"))


def test_memory_volumes_work_inside_one_process():
    store = "memory://zarr-volume-test/em.zarr"
    from pipeline.storage import ImageSpec, ImageWriter

    writer = ImageWriter(ImageSpec(store, SHAPE, "uint8", (4.0, 4.0, 4.0), (2, 3, 5)))
    writer.create()
    writer.write(WHOLE, IMAGE)
    np.testing.assert_array_equal(open_volume(store).read(WHOLE), IMAGE)
