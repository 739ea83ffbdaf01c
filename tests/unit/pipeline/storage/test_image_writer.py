"""Images and truth volumes."""

import numpy as np
import pytest

from pipeline.errors import OurError, VolumeFormatError
from pipeline.geometry import Box
from pipeline.storage import ImageSpec, ImageWriter, mean_downsampled, open_volume

SHAPE = (11, 23, 37)
IMAGE = np.random.default_rng(0).integers(0, 65535, SHAPE).astype(np.uint16)


def test_blocks_and_pyramid(tmp_path):
    spec = ImageSpec(str(tmp_path / "i"), SHAPE, "uint16", (30.0, 8.0, 8.0), (4, 8, 16), ((1, 2, 2), (2, 2, 2)))
    writer = ImageWriter(spec)
    writer.create()
    for index in range(len(writer.grid())):
        box = writer.grid().box(index)
        writer.write(box, IMAGE[box.slices])
    writer.build_pyramid()
    volume = open_volume(spec.url)
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), IMAGE)
    assert [level.voxel_size_zyx_nm for level in volume.info.levels] == [(30, 8, 8), (30, 16, 16), (60, 32, 32)]
    expected = IMAGE
    for level, factor in enumerate(spec.factors_zyx, start=1):
        expected = mean_downsampled(expected, factor)
        found = open_volume(spec.url, level=level).read(Box.of_shape(expected.shape))
        np.testing.assert_array_equal(found, expected)


def test_mean_by_hand():
    image = np.array([[[1, 2, 9], [3, 5, 250]]], np.uint8)
    np.testing.assert_array_equal(mean_downsampled(image, (1, 2, 2)), [[[3, 130]]])
    assert mean_downsampled(np.full((3, 3, 3), 65535, np.uint16), (2, 2, 2)).min() == 65535


def test_create_drops_what_was_there(tmp_path):
    spec = ImageSpec(str(tmp_path / "i"), SHAPE, "uint16", (1.0, 1.0, 1.0), (4, 8, 16))
    writer = ImageWriter(spec)
    writer.create()
    writer.write(Box.of_shape(SHAPE), IMAGE)
    writer.create()
    assert not open_volume(spec.url).read(Box.of_shape(SHAPE)).any()


def test_truth_of_any_unsigned_type(tmp_path):
    spec = ImageSpec(str(tmp_path / "t"), SHAPE, "uint32", (1.0, 1.0, 1.0), kind="labels", name="truth")
    writer = ImageWriter(spec)
    writer.create()
    writer.write(Box.of_shape(SHAPE), IMAGE.astype(np.uint32) << np.uint32(9))
    found = open_volume(spec.url, kind="labels").read(Box.of_shape(SHAPE))
    np.testing.assert_array_equal(found >> np.uint32(9), IMAGE)
    with pytest.raises(VolumeFormatError, match="uint32"):
        open_volume(spec.url)


def test_misfits(tmp_path):
    url = str(tmp_path / "i")
    with pytest.raises(VolumeFormatError, match="float32"):
        ImageWriter(ImageSpec(url, SHAPE, "float32", (1.0, 1.0, 1.0)))
    with pytest.raises(OurError, match="mean"):
        ImageWriter(ImageSpec(url, SHAPE, "uint64", (1.0, 1.0, 1.0), factors_zyx=((2, 2, 2),), kind="labels"))
    writer = ImageWriter(ImageSpec(url, SHAPE, "uint16", (1.0, 1.0, 1.0), (4, 8, 16)))
    writer.create()
    with pytest.raises(OurError, match="whole chunks"):
        writer.write(Box((0, 0, 0), (3, 23, 37)), IMAGE[:3])
    with pytest.raises(OurError, match="voxels are"):
        writer.write(Box.of_shape(SHAPE), IMAGE.astype(np.uint8))
