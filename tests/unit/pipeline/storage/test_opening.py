"""The one door."""

import uuid

import numpy as np
import pytest

from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import LabelVolumeSpec, label_writer, open_volume

SHAPE = (5, 7, 11)


@pytest.mark.parametrize("url", ["", "/no/such/place.zarr", "/no/such.tif", "/no/such.h5:x", "memory://no/such"])
def test_nothing_there(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VolumeNotFound):
        open_volume(url)


def test_unknown_schemes_are_named():
    with pytest.raises(ConfigError, match=r"ftp.*s3"):
        open_volume("ftp://host/em.zarr")


@pytest.mark.parametrize("label_format", ["ome-zarr", "precomputed"])
@pytest.mark.parametrize("prefix", ["", "file://", "memory"])
def test_paths_file_urls_and_memory(tmp_path, label_format, prefix):
    url = f"memory://{uuid.uuid4().hex}/seg" if prefix == "memory" else f"{prefix}{tmp_path}/seg"
    writer = label_writer(label_format, LabelVolumeSpec(url, SHAPE, (9.0, 9.0, 9.0), (2, 3, 5)))
    writer.create()
    labels = np.random.default_rng(0).integers(0, 99, SHAPE).astype(np.uint64)
    writer.write(0, Box.of_shape(SHAPE), labels)
    volume = open_volume(url, kind="labels")
    assert volume.info.format == label_format
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), labels)
    writer.delete()
    with pytest.raises(VolumeNotFound):
        open_volume(url, kind="labels")


def test_neuroglancer_prefixes_are_accepted(tmp_path):
    spec = LabelVolumeSpec(str(tmp_path / "seg"), SHAPE, (9.0, 9.0, 9.0), (2, 3, 5))
    label_writer("precomputed", spec).create()
    assert open_volume(f"precomputed://file://{tmp_path}/seg", kind="labels").info.shape_zyx == SHAPE
