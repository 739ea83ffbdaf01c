"""Who owns an output, what a run is compared with, and what is known before the first block."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.config import RunConfig
from pipeline.errors import ConfigError, CorruptData, IntermediateLost, ManifestMismatch, VolumeNotFound
from pipeline.run import api, finding
from pipeline.run.launch import run_config
from pipeline.run.prepare import prepare_run
from pipeline.run.serial import SerialExecutor
from pipeline.stages import relabel
from pipeline.telemetry import SilentReporter

SHAPE = (13, 34, 38)


@pytest.fixture
def image(tmp_path):
    return write_volume(tmp_path / "em.zarr", np.random.default_rng(3).integers(0, 255, SHAPE).astype(np.uint8))


def write_volume(path, voxels):
    array = zarr.create_array(str(path), shape=voxels.shape, chunks=(8, 16, 16), dtype=voxels.dtype)
    array[:] = voxels
    return str(path)


def config_of(url, outputs, **sections):
    values = {
        "image": {"url": url, "voxel_size_zyx_nm": [30, 8, 8], **sections.pop("image", {})},
        "outputs": [{"url": str(url), "chunk_zyx": [8, 16, 16], "num_mips": 1} for url in outputs],
        "segmenter": {"kind": "threshold", "foreground": "bright", **sections.pop("segmenter", {})},
        "plan": {"block_zyx": [8, 32, 32]},
        **sections,
    }
    return RunConfig.model_validate(values)


def segment(config, **options):
    return run_config(
        config, reporter=SilentReporter(), open_executor=lambda _, stages: SerialExecutor(stages), **options
    )


def test_a_run_does_not_write_into_the_second_output_of_another(image, tmp_path):
    first = config_of(image, [tmp_path / "a.zarr", tmp_path / "shared.zarr"])
    segment(first)
    before = zarr.open_array(str(tmp_path / "shared.zarr" / "0"), mode="r")[:]
    dark = config_of(image, [tmp_path / "b.zarr", tmp_path / "shared.zarr"], segmenter={"foreground": "dark"})
    for options in ({}, {"restart": True}):
        with pytest.raises(ManifestMismatch, match=r"shared\.zarr holds another volume"):
            segment(dark, **options)
    assert np.array_equal(zarr.open_array(str(tmp_path / "shared.zarr" / "0"), mode="r")[:], before)
    assert segment(first).status == "already complete"


def test_verify_and_clean_refuse_a_config_that_has_changed(image, tmp_path, monkeypatch):
    segment(config_of(image, [tmp_path / "out.zarr"], classes={"object": {"threshold": 0.6}}))
    changed = config_of(image, [tmp_path / "out.zarr"], classes={"object": {"threshold": 0.7}})
    monkeypatch.setattr(finding, "read_config", lambda path: changed)
    for report in (api.verify_report, api.clean_report):
        with pytest.raises(ManifestMismatch, match=r"threshold was 0\.6 .* is 0\.7 now"):
            report("run.yaml")


def test_keeping_intermediates_is_no_part_of_the_result(image, tmp_path, monkeypatch):
    keeping = config_of(image, [tmp_path / "out.zarr"], storage={"keep_intermediates": True})
    segment(keeping)
    monkeypatch.setattr(finding, "read_config", lambda path: keeping)
    with pytest.raises(ConfigError, match="keep_intermediates"):
        api.clean_report("run.yaml")
    without = config_of(image, [tmp_path / "out.zarr"])
    monkeypatch.setattr(finding, "read_config", lambda path: without)
    api.verify_report("run.yaml")
    assert api.clean_report("run.yaml") == {"cleaned": True}


def test_a_mask_that_is_not_there_is_told_before_anything_is_written(image, tmp_path):
    config = config_of(image, [tmp_path / "out.zarr"], image={"mask_url": str(tmp_path / "none.zarr")})
    with pytest.raises(VolumeNotFound, match=r"none\.zarr"):
        segment(config)
    assert not list(tmp_path.glob("out*"))


def test_a_mask_without_a_voxel_size_names_its_own_option(image, tmp_path):
    mask = write_volume(tmp_path / "mask.zarr", np.ones((4, 8, 8), np.uint8))
    with pytest.raises(ConfigError, match=r"mask .*--mask-voxel-size.*image\.mask_voxel_size_zyx_nm"):
        segment(config_of(image, [tmp_path / "out.zarr"], image={"mask_url": mask}))
    sized = {"mask_url": mask, "mask_voxel_size_zyx_nm": [100.0, 40.0, 40.0]}
    assert segment(config_of(image, [tmp_path / "out.zarr"], image=sized)).status == "complete"


def test_a_given_voxel_size_holds_for_the_coarser_levels_too(tmp_path):
    """A pyramid without units: the size given is that of the finest level, and level 1 is twice as coarse."""
    group = zarr.create_group(str(tmp_path / "em.zarr"))
    for level, step in enumerate((1, 2)):
        shape = tuple(extent // step for extent in (24, 64, 64))
        group.create_array(str(level), shape=shape, chunks=(12, 32, 32), dtype="uint8")[:] = 7
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [step] * 3}]}
        for level, step in enumerate((1, 2))
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    config = config_of(
        str(tmp_path / "em.zarr"),
        [tmp_path / "out.zarr"],
        image={"voxel_size_zyx_nm": [5, 5, 5], "level": 1},
    )
    plan = prepare_run(config).plan
    assert plan.image_level == 1
    assert plan.source_voxel_size_nm == (10.0, 10.0, 10.0)
    assert segment(config).status == "complete"


def test_a_damaged_image_gives_the_run_its_own_exit_code(image, tmp_path):
    chunk = sorted(path for path in (Path(image) / "c").rglob("*") if path.is_file())[-1]
    chunk.write_bytes(chunk.read_bytes()[:-7])
    config = config_of(image, [tmp_path / "out.zarr"])
    with pytest.raises(CorruptData, match="failed for good") as caught:
        segment(config)
    assert caught.value.exit_code == 4
    assert not json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())["attributes"]["sam4em"]["complete"]


def test_a_lost_intermediate_costs_one_more_command(image, tmp_path, monkeypatch):
    config = config_of(image, [tmp_path / "out.zarr"])
    segment(config)
    expected = zarr.open_array(str(tmp_path / "out.zarr" / "0"), mode="r")[:]
    shutil.rmtree(tmp_path / "out.zarr")
    shutil.rmtree(tmp_path / "out.zarr.run")
    relabel_run = relabel.run

    def lose_a_chunk_first(index, plan, context):
        for chunk in sorted((tmp_path / "out.zarr.run" / "scratch").rglob("c/*/*/*"))[:1]:
            chunk.unlink()
        return relabel_run(index, plan, context)

    with monkeypatch.context() as patch:
        patch.setattr(relabel, "run", lose_a_chunk_first)
        with pytest.raises(IntermediateLost):
            segment(config)
    assert segment(config).status == "complete"
    assert np.array_equal(zarr.open_array(str(tmp_path / "out.zarr" / "0"), mode="r")[:], expected)


def test_the_memory_of_one_process_is_no_place_for_workers(image, tmp_path):
    outputs = [tmp_path / "out.zarr", "memory://out.zarr"]
    with pytest.raises(ConfigError, match=r"memory://out\.zarr lies in the memory of this process"):
        run_config(config_of(image, outputs), reporter=SilentReporter())
    assert not list(tmp_path.glob("out*"))
