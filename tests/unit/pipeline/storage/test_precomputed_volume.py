"""What is particular to reading precomputed."""

import json

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.errors import VolumeFormatError
from pipeline.geometry import Box
from pipeline.storage import StorageOptions, open_volume
from pipeline.storage.precomputed_volume import to_cloud_path

SHAPE = (5, 7, 11)
IMAGE = np.random.default_rng(0).integers(1, 255, SHAPE).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    info = CloudVolume.create_new_info(
        1, "image", "uint8", "raw", (4, 4, 40), (0, 0, 0), SHAPE[::-1], chunk_size=(6, 4, 2)
    )
    volume = CloudVolume(f"file://{tmp_path}/v", info=info, progress=False, compress=False)
    volume.add_scale((2, 2, 1))
    volume.commit_info()
    volume[:, :, :] = IMAGE.T[..., None]
    volume.mip = 1
    volume[:, :, :] = IMAGE[:, ::2, ::2].T[..., None]
    return tmp_path / "v"


def test_every_mip(folder):
    volume = open_volume(str(folder), level=1)
    assert volume.info.shape_zyx == (5, 4, 6)
    assert volume.require_voxel_size() == (40.0, 8.0, 8.0)
    np.testing.assert_array_equal(volume.read(Box.of_shape((5, 4, 6))), IMAGE[:, ::2, ::2])


def test_a_missing_chunk_reads_as_zeros(folder):
    (folder / "4_4_40" / "0-6_0-4_0-2").unlink()
    voxels = open_volume(str(folder)).read(Box.of_shape(SHAPE))
    assert not voxels[:2, :4, :6].any()
    np.testing.assert_array_equal(voxels[2:], IMAGE[2:])


@pytest.mark.parametrize(
    ("change", "said"), [({"num_channels": 3}, "3 channels"), ({"scales": []}, "no scales"), (None, "not JSON")]
)
def test_info_that_is_no_volume(folder, change, said):
    info = json.loads((folder / "info").read_text())
    (folder / "info").write_text("{" if change is None else json.dumps(info | change))
    with pytest.raises(VolumeFormatError, match=said):
        open_volume(str(folder))


def test_an_endpoint_becomes_an_alias_once():
    options = StorageOptions(endpoint_url="http://127.0.0.1:9/")
    path = to_cloud_path("s3://bucket/key", options)
    assert path == to_cloud_path("s3://bucket/key", options)
    assert path.endswith("://bucket/key")
    assert to_cloud_path("s3://bucket/key", StorageOptions()) == "s3://bucket/key"
    assert to_cloud_path("gs://bucket/key", options) == "gs://bucket/key"
