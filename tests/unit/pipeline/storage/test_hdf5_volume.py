"""What is particular to HDF5."""

import h5py
import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptData, VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import open_volume
from pipeline.storage.hdf5_volume import split_address

IMAGE = np.random.default_rng(0).integers(1, 255, (5, 7, 11)).astype(np.uint8)


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        opened["volumes/raw"] = IMAGE
        opened["volumes/labels"] = IMAGE > 99
        opened["flat"] = IMAGE[0]
        opened["volumes/raw"].attrs["element_size_um"] = (0.03, 0.008, 0.008)
    return str(tmp_path / "a.h5")


def test_addresses():
    assert split_address("s3://b/a.h5:x/y") == ("s3://b/a.h5", "x/y")
    assert split_address("/a.hdf5:/x") == ("/a.hdf5", "x")
    assert split_address("a.h5") == ("a.h5", "")
    assert split_address("s3://b/a.zarr") is None


def test_voxel_size_in_micrometers_and_bool_labels(file):
    assert open_volume(f"{file}:volumes/raw").require_voxel_size() == pytest.approx((30.0, 8.0, 8.0))
    labels = open_volume(f"{file}:volumes/labels", kind="labels")
    np.testing.assert_array_equal(labels.read(Box.of_shape(IMAGE.shape)), (IMAGE > 99).astype(np.uint8))


def test_missing_names_are_answered_with_those_there_are(file):
    with pytest.raises(ConfigError, match="volumes/raw"):
        open_volume(file)
    for name in ("nothing", "volumes"):
        with pytest.raises(VolumeNotFound, match="flat, volumes/labels, volumes/raw"):
            open_volume(f"{file}:{name}")


def test_rank_and_other_files(file, tmp_path):
    with pytest.raises(VolumeFormatError, match="2 axes"):
        open_volume(f"{file}:flat")
    (tmp_path / "b.h5").write_bytes(b"no such format")
    with pytest.raises(VolumeFormatError, match=r"b\.h5"):
        open_volume(f"{tmp_path / 'b.h5'}:x")


def test_a_damaged_chunk_names_its_box(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as opened:
        data = opened.create_dataset("raw", data=IMAGE, chunks=IMAGE.shape, compression="gzip")
        start = data.id.get_chunk_info(0).byte_offset
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[start : start + 20] = b"\xff" * 20
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(CorruptData, match="0:5,0:7,0:11"):
        open_volume(f"{tmp_path / 'a.h5'}:raw").read(Box.of_shape(IMAGE.shape))
