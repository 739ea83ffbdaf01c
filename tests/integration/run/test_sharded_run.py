"""A whole run into sharded outputs of both formats: shards of zarr v3, and of precomputed with uint64 ids."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
import zarr
from scipy import ndimage

from pipeline.config import read_config
from pipeline.errors import CorruptData
from pipeline.geometry import Box
from pipeline.run import api, launch
from pipeline.run.serial import SerialExecutor
from pipeline.storage import open_volume

SHAPE = (37, 67, 71)


def bodies():
    noise = ndimage.gaussian_filter(np.random.default_rng(9).standard_normal(SHAPE), 2)
    return noise > np.quantile(noise, 0.8)


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    monkeypatch.setattr(launch, "dask_executor", lambda prepared, stages: SerialExecutor(stages))
    array = zarr.create_array(str(tmp_path / "em.zarr"), shape=SHAPE, chunks=(16, 32, 32), dtype="uint8")
    array[:] = np.where(bodies(), np.uint8(200), np.uint8(40))
    shards = {"chunk_zyx": [8, 16, 16], "shard_zyx": [16, 32, 32], "num_mips": 2}
    values = {
        "image": {"url": str(tmp_path / "em.zarr"), "voxel_size_zyx_nm": [8, 8, 8]},
        "outputs": [{"url": str(tmp_path / name), **shards} for name in ("out.zarr", "out")],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [16, 32, 32]},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def labels_of(path, level=0):
    volume = open_volume(str(path), kind="labels", level=level)
    return volume.read(Box.of_shape(volume.info.shape_zyx))


def test_both_formats_hold_the_same_ids_in_whole_shards(config_file, tmp_path):
    assert api.run_config(read_config(config_file))["status"] == "complete"
    assert api.verify_report(config_file)["verified"] is True
    truth, count = ndimage.label(bodies())
    found = labels_of(tmp_path / "out.zarr")
    pairs = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1)
    assert pairs.shape[1] == count + 1 == len(np.unique(pairs[1]))
    for level in range(2):
        one, other = labels_of(tmp_path / "out.zarr", level), labels_of(tmp_path / "out", level)
        assert one.dtype == other.dtype == np.uint64
        np.testing.assert_array_equal(one, other)
    array = zarr.open_array(tmp_path / "out.zarr" / "0", mode="r")
    assert (array.shards, array.chunks) == ((16, 32, 32), (8, 16, 16))
    # 3 x 3 x 3 shards: as many files, and none for a chunk.
    assert len([path for path in (tmp_path / "out.zarr" / "0" / "c").rglob("*") if path.is_file()]) == 27
    info = json.loads((tmp_path / "out" / "info").read_text())
    assert info["data_type"] == "uint64"
    assert {scale["sharding"]["@type"] for scale in info["scales"]} == {"neuroglancer_uint64_sharded_v1"}
    shards = list((tmp_path / "out" / info["scales"][0]["key"]).iterdir())
    assert {path.suffix for path in shards} == {".shard"}
    assert len(shards) == 27


@pytest.mark.parametrize("name", ["out.zarr", "out"])
def test_a_shard_that_was_lost_is_found_and_made_again(config_file, tmp_path, name):
    config = read_config(config_file)
    api.run_config(config)
    before = labels_of(tmp_path / name)
    files = [path for path in Path(tmp_path, name).rglob("*") if path.suffix == ".shard" or path.parts[-4] == "c"]
    max(files, key=lambda path: path.stat().st_size).unlink()
    with pytest.raises(CorruptData, match="1 write unit"):
        api.verify_report(config_file)
    assert api.run_config(config)["status"] == "complete"
    assert api.verify_report(config_file)["verified"] is True
    np.testing.assert_array_equal(labels_of(tmp_path / name), before)
