"""What is particular to precomputed segmentations: shards and offsets."""

import itertools
import json

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.errors import ManifestMismatch, OurError
from pipeline.geometry import Box
from pipeline.storage import LabelVolumeSpec
from pipeline.storage.precomputed_labels import (
    MAX_SHARD_BYTES,
    PrecomputedSegmentation,
    attainable_shards,
    sharding_specification,
)

SHAPE = (11, 23, 37)


def spec_of(url, **changes):
    values = {"shape_zyx": SHAPE, "voxel_size_zyx_nm": (30.0, 8.0, 6.0), "chunk_zyx": (4, 8, 16)} | changes
    return LabelVolumeSpec(str(url), **values)


def test_cloud_volume_itself_reads_it(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2**64, SHAPE, dtype=np.uint64)
    writer = PrecomputedSegmentation(spec_of(tmp_path / "s", shard_zyx=(8, 16, 32), offset_zyx_voxels=(3, 4, 8)))
    writer.create()
    writer.write(0, Box.of_shape(SHAPE), labels)
    cloud = CloudVolume(f"file://{tmp_path}/s", progress=False)
    assert list(cloud.voxel_offset) == [8, 4, 3]
    assert list(cloud.resolution) == [6, 8, 30]
    assert cloud.layer_type == "segmentation"
    assert cloud.encoding == "compressed_segmentation"
    np.testing.assert_array_equal(np.asarray(cloud[:, :, :])[..., 0].T, labels)


def test_offsets_follow_the_source_and_the_pyramid(tmp_path):
    changes = {"offset_zyx_voxels": (5, 6, 7), "origin_zyx_nm": (60.0, -4.0, 6.0), "factors_zyx": ((2, 2, 2),)}
    PrecomputedSegmentation(spec_of(tmp_path / "s", **changes)).create()
    info = json.loads((tmp_path / "s" / "info").read_text())
    assert [scale["voxel_offset"] for scale in info["scales"]] == [[8, 6, 7], [4, 3, 3]]


def test_attainable_shards_stay_below_the_limit_and_nest():
    shards = attainable_shards((4096, 8192, 8192), (64, 64, 64))
    assert shards[0] == (64, 64, 64)
    assert all(np.prod(shard) * 8 <= MAX_SHARD_BYTES for shard in shards)
    assert np.prod(shards[-1]) * 8 * 2 > MAX_SHARD_BYTES
    for small, large in itertools.pairwise(shards):
        assert all(b % a == 0 for a, b in zip(small, large, strict=True))


def test_bits_add_up_to_the_grid():
    for bits in (0, 3, 11, 40):
        spec = sharding_specification(bits, (4096, 8192, 8192), (64, 64, 64))
        total = spec["preshift_bits"] + spec["minishard_bits"] + spec["shard_bits"]
        assert total == 6 + 7 + 7
        assert spec["preshift_bits"] + spec["minishard_bits"] == min(bits, total)


def test_a_foreign_volume_is_not_touched(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "info").write_text('{"scales": []}')
    for call in ("create", "delete"):
        with pytest.raises(ManifestMismatch, match="another volume"):
            getattr(PrecomputedSegmentation(spec_of(tmp_path / "s")), call)()


def test_marking_before_creating_is_a_bug(tmp_path):
    with pytest.raises(OurError, match="before it was created"):
        PrecomputedSegmentation(spec_of(tmp_path / "s")).mark(complete=True)
