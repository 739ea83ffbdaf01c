"""Masks with a voxel size of their own."""

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.storage import ImageSpec, ImageWriter, MaskVolume, open_volume
from pipeline.storage.mask import _block_shape

SHAPE = (5, 11, 13)


@pytest.fixture
def mask(tmp_path):
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[3, 7, 9] = 2
    spec = ImageSpec(str(tmp_path / "m"), SHAPE, "uint8", (40.0, 20.0, 10.0), (2, 4, 8), (), "labels")
    writer = ImageWriter(spec)
    writer.create()
    writer.write(Box.of_shape(SHAPE), voxels)
    return MaskVolume(open_volume(spec.url, kind="labels"), max_block_voxels=64)


def test_one_voxel_is_found_exactly(mask):
    assert mask.covers((120.0, 140.0, 90.0), (160.0, 160.0, 100.0))
    assert mask.covers((159.0, 159.0, 99.0), (500.0, 500.0, 500.0))
    assert mask.covers((0.0, 0.0, 0.0), (1e6, 1e6, 1e6))
    for axis, size in enumerate((40.0, 20.0, 10.0)):
        start, stop = [120.0, 140.0, 90.0], [160.0, 160.0, 100.0]
        start[axis], stop[axis] = stop[axis], stop[axis] + size
        assert not mask.covers(tuple(start), tuple(stop))


def test_outside_the_mask_is_background(mask):
    assert not mask.covers((1e6, 0.0, 0.0), (2e6, 1e3, 1e3))
    assert not mask.covers((-50.0, -50.0, -50.0), (0.0, 0.0, 0.0))


def test_rounding_does_not_reach_into_the_next_voxel(mask):
    assert not mask.covers((0.0, 0.0, 0.0), (3 * 40.0 + 1e-9, 500.0, 500.0))


def test_memory_is_bounded(mask, monkeypatch):
    sizes = []
    read = mask.volume.read

    def counted(box):
        sizes.append(box.num_voxels)
        return read(box)

    monkeypatch.setattr(mask.volume, "read", counted)
    mask.covers((0.0, 0.0, 0.0), (1e6, 1e6, 60.0))
    assert max(sizes) <= 64
    assert _block_shape((1, 5000, 5000), (9, 5000, 5000), 2**20)[1] < 5000


def test_a_mask_without_voxel_size_is_refused(tmp_path):
    spec = ImageSpec(str(tmp_path / "m"), SHAPE, "uint8", (1.0, 1.0, 1.0))
    ImageWriter(spec).create()
    volume = open_volume(spec.url + "/0", kind="labels")
    object.__setattr__(volume.info, "voxel_size_zyx_nm", None)
    with pytest.raises(ConfigError, match="--voxel-size"):
        MaskVolume(volume)
