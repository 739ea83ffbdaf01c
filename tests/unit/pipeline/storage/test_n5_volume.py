"""N5 as OpenOrganelle and BigDataViewer lay it out, written by tensorstore."""

import importlib
import json

import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptData, VolumeFormatError
from pipeline.geometry import Box
from pipeline.storage import StorageOptions, open_volume
from pipeline.storage.n5_volume import kvstore_of

tensorstore = pytest.importorskip("tensorstore")

SHAPE = (13, 17, 23)


def write_array(path, voxels_zyx, **attributes):
    """Write an array in blocks of 5 x 7 x 11 (xyz), and what else its attributes.json says."""
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {
            "dimensions": list(reversed(voxels_zyx.shape)),
            "blockSize": [5, 7, 11],
            "dataType": str(voxels_zyx.dtype),
            "compression": {"type": "gzip"},
        },
        "create": True,
    }
    tensorstore.open(spec).result()[...].write(voxels_zyx.transpose(2, 1, 0)).result()
    file = path / "attributes.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **attributes}))


@pytest.fixture
def voxels():
    return np.random.default_rng(5).integers(1, 60_000, SHAPE).astype(np.uint16)


@pytest.fixture
def organelle(tmp_path, voxels):
    """`em/fibsem-uint16` of OpenOrganelle: levels s0 and s1, each with its own transform."""
    group = tmp_path / "jrc_x.n5" / "em" / "fibsem-uint16"
    transforms = {}
    for name, step in (("s0", 1), ("s1", 2)):
        level = np.ascontiguousarray(voxels[::step, ::step, ::step])
        scale = [3.24 * step, 4.0 * step, 5.0 * step]
        translate = [10.0 + 3.24 * (step - 1) / 2, 20.0, 30.0]
        transforms[name] = {"axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": scale, "translate": translate}
        write_array(group / name, level, transform=transforms[name])
    datasets = [{"path": name, "transform": found} for name, found in transforms.items()]
    (group / "attributes.json").write_text(json.dumps({"multiscales": [{"datasets": datasets}]}))
    return group


def test_a_level_of_a_group(organelle, voxels):
    volume = open_volume(str(organelle), level=1)
    assert (volume.info.format, volume.info.shape_zyx, volume.info.level) == ("n5", (7, 9, 12), 1)
    assert volume.info.voxel_size_zyx_nm == (6.48, 8.0, 10.0)
    assert volume.info.chunk_zyx == (11, 7, 5)
    assert [(found.path, found.shape_zyx) for found in volume.info.levels] == [("s0", SHAPE), ("s1", (7, 9, 12))]
    np.testing.assert_array_equal(volume.read(Box.of_shape((7, 9, 12))), voxels[::2, ::2, ::2])


def test_a_box_across_blocks_of_one_array(organelle, voxels):
    volume = open_volume(str(organelle / "s0"))
    box = Box((3, 5, 4), (13, 16, 23))
    found = volume.read(box)
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, voxels[box.slices])
    assert volume.require_voxel_size() == (3.24, 4.0, 5.0)
    # The transform places the center of the first voxel.
    assert volume.info.origin_zyx_nm == pytest.approx((10 - 1.62, 18.0, 27.5))


def test_the_transform_may_stand_in_the_group_alone(organelle):
    file = organelle / "s1" / "attributes.json"
    attributes = json.loads(file.read_text())
    del attributes["transform"]
    file.write_text(json.dumps(attributes))
    assert open_volume(str(organelle / "s1")).require_voxel_size() == (6.48, 8.0, 10.0)


def test_pixel_resolution_is_xyz(tmp_path, voxels):
    resolution = {"dimensions": [0.005, 0.004, 0.003], "unit": "um"}
    (tmp_path / "setup0").mkdir()
    (tmp_path / "setup0" / "attributes.json").write_text(json.dumps({"pixelResolution": resolution}))
    write_array(tmp_path / "setup0" / "s0", voxels)
    write_array(tmp_path / "setup0" / "s1", voxels[:5], downsamplingFactors=[4, 2, 1])
    assert open_volume(str(tmp_path / "setup0")).require_voxel_size() == pytest.approx((3.0, 4.0, 5.0))
    assert open_volume(str(tmp_path / "setup0"), level=1).require_voxel_size() == pytest.approx((3.0, 8.0, 20.0))


def test_a_size_that_is_given_is_that_of_the_finest_level(organelle):
    given = (1.0, 2.0, 3.0)
    assert open_volume(str(organelle), voxel_size_zyx_nm=given).require_voxel_size() == given
    assert open_volume(str(organelle), voxel_size_zyx_nm=given, level=1).require_voxel_size() == (2.0, 4.0, 6.0)


def test_without_a_size_the_error_names_the_option(tmp_path, voxels):
    write_array(tmp_path / "raw", voxels)
    volume = open_volume(str(tmp_path / "raw"))
    assert volume.info.voxel_size_zyx_nm is None
    with pytest.raises(ConfigError, match="voxel"):
        volume.require_voxel_size()


def test_labels_keep_64_bits(tmp_path):
    labels = np.full(SHAPE, 2**64 - 3, np.uint64)
    write_array(tmp_path / "labels", labels)
    volume = open_volume(str(tmp_path / "labels"), kind="labels")
    np.testing.assert_array_equal(volume.read(Box.of_shape(SHAPE)), labels)


def test_a_block_that_is_not_there_is_zero(tmp_path, voxels):
    write_array(tmp_path / "raw", voxels)
    (tmp_path / "raw" / "0" / "0" / "0").unlink()
    found = open_volume(str(tmp_path / "raw")).read(Box.of_shape(SHAPE))
    assert (found[:11, :7, :5] == 0).all()
    np.testing.assert_array_equal(found[11:], voxels[11:])


def test_a_damaged_block_is_an_error(tmp_path, voxels):
    write_array(tmp_path / "raw", voxels)
    block = tmp_path / "raw" / "0" / "0" / "0"
    block.write_bytes(block.read_bytes()[:40])
    with pytest.raises(CorruptData, match="reading box"):
        open_volume(str(tmp_path / "raw")).read(Box.of_shape(SHAPE))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"n5": "2.5.0"}', "s0, s1"),
        ('{"dimensions": [3, 4], "blockSize": [3, 4], "dataType": "uint8"}', "x, y and z"),
    ],
)
def test_unusable_metadata(tmp_path, text, message):
    (tmp_path / "attributes.json").write_text(text)
    with pytest.raises(VolumeFormatError, match=message):
        open_volume(str(tmp_path))


def test_without_the_extra_the_error_names_it(organelle, monkeypatch):
    real = importlib.import_module

    def absent(name, *rest):
        if name == "tensorstore":
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r"sam4em\[n5\]"):
        open_volume(str(organelle))


def test_stores_in_the_words_of_tensorstore():
    private = StorageOptions(endpoint_url="http://127.0.0.1:9000", region="eu-1", credentials="profile:lab")
    assert kvstore_of("s3://bucket/a.n5/em", private) == {
        "driver": "s3",
        "bucket": "bucket",
        "path": "a.n5/em/",
        "endpoint": "http://127.0.0.1:9000",
        "aws_region": "eu-1",
        "aws_credentials": {"type": "profile", "profile": "lab"},
    }
    anonymous = kvstore_of("s3://bucket/em", StorageOptions(credentials="anonymous"))
    assert anonymous["aws_credentials"] == {"type": "anonymous"}
    assert kvstore_of("gs://bucket/em", StorageOptions()) == {"driver": "gcs", "bucket": "bucket", "path": "em/"}
    web = kvstore_of("https://host/a/b", StorageOptions())
    assert web == {"driver": "http", "base_url": "https://host", "path": "/a/b/"}
    with pytest.raises(ConfigError, match="memory"):
        kvstore_of("memory://a", StorageOptions())
