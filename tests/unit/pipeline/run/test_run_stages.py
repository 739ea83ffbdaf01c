import pickle
from dataclasses import replace

import numpy as np
import pytest
import zarr

from pipeline.config import RunConfig
from pipeline.errors import CorruptData, WeightsError
from pipeline.geometry import BlockGrid
from pipeline.ledger import DoneMap, UnitSum
from pipeline.run.launch import describe_run, open_run, run_config
from pipeline.run.prepare import prepare_run
from pipeline.run.run_places import RunPlaces, list_outputs, spec_from, stray_ids
from pipeline.run.run_stages import RunRoom, RunStages, stage_specs
from pipeline.run.serial import SerialExecutor
from pipeline.run.stream import Task, TaskStream
from pipeline.telemetry import SilentReporter

SHAPE = (11, 37, 41)


@pytest.fixture
def config(tmp_path):
    array = zarr.create_array(str(tmp_path / "em.zarr"), shape=SHAPE, chunks=(8, 16, 16), dtype="uint8", zarr_format=3)
    grey = np.zeros(SHAPE, np.uint8)
    grey[1:9, 3:30, 5:38] = 200
    array[:] = grey
    return RunConfig.model_validate(
        {
            "image": {"url": str(tmp_path / "em.zarr"), "voxel_size_zyx_nm": [30, 8, 8]},
            "outputs": [{"url": str(tmp_path / "out.zarr"), "chunk_zyx": [4, 8, 8], "num_mips": 3}],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": [4, 16, 16]},
        }
    )


def two_stage(plan):
    """Give the plan a predict stage whose blocks do not coincide with the label blocks."""
    return replace(plan, predict_grid=BlockGrid(plan.working_domain, (5, 13, 17)))


def test_needs_are_what_the_stages_read(config):
    plan = two_stage(prepare_run(config).plan)
    specs = {spec.name: spec for spec in stage_specs(plan)}
    assert list(specs) == ["predict", "label", "match", "resolve", "audit", "relabel", "pyramid"]
    assert [specs[name].lane for name in ("predict", "label")] == ["device", "cpu"]
    assert list(specs["predict"].needs(0)) == []
    region = plan.label_grid.box(0).grown(plan.label_halo_zyx).intersection(plan.output_domain)
    assert {task.index for task in specs["label"].needs(0)} >= set(plan.predict_grid.touched_by(region))
    assert list(specs["match"].needs(2)) == [Task("label", 0), Task("label", 1)]
    last_of_x = plan.label_grid.shape[2] - 1
    assert list(specs["match"].needs(3 * last_of_x + 2)) == []
    assert (specs["resolve"].after, specs["relabel"].after) == (("label", "match"), ("resolve",))


def test_pyramid_cells_need_what_lies_below(config):
    plan = prepare_run(config).plan
    specs = {spec.name: spec for spec in stage_specs(plan)}
    first = len(plan.pyramid_grids[0])
    below = {task.stage for index in range(first) for task in specs["pyramid"].needs(index)}
    above = {task.stage for index in range(first, specs["pyramid"].num_tasks) for task in specs["pyramid"].needs(index)}
    assert (below, above) == ({"relabel"}, {"pyramid"})
    needed = {task.index for index in range(first) for task in specs["pyramid"].needs(index)}
    assert needed == set(range(len(plan.relabel_grid)))


def test_the_fused_segmenter_runs_in_the_label_stage(config):
    specs = {spec.name: spec for spec in stage_specs(prepare_run(config).plan)}
    assert (specs["predict"].num_tasks, specs["label"].lane, specs["match"].lane) == (0, "device", "cpu")


def test_the_stream_can_meet_all_needs(config):
    plan = two_stage(prepare_run(config).plan)
    specs = stage_specs(plan)
    done = {spec.name: DoneMap(spec.num_tasks) for spec in specs}
    stream = TaskStream(specs, done, {"cpu": 5, "device": 2})
    while tasks := stream.take():
        for task in tasks:
            done[task.stage].add(task.index)
            stream.finish(task)
    assert stream.is_settled


def test_the_stages_travel_to_workers(config):
    prepared = prepare_run(config)
    stages = RunStages(prepared.plan, prepared.demand.identity)
    assert pickle.loads(pickle.dumps(stages)) == stages  # noqa: S301
    assert len(pickle.dumps(stages)) < 20_000


def test_a_worker_with_another_model_refuses(config):
    prepared = prepare_run(config)
    other = replace(prepared.demand.identity, weights_sha256="ff")
    room = RunRoom(RunStages(prepared.plan, other))
    with pytest.raises(WeightsError, match="the same model file"):
        room.run(Task("label", 0))


def test_the_manifest_tells_what_decides_the_result(config):
    manifest = describe_run(prepare_run(config))
    assert set(manifest.config) == {"image", "outputs", "segmenter", "classes", "predictions", "plan"}
    assert manifest.num_tasks["match"] == 3 * manifest.num_tasks["label"]
    assert manifest.packages["numpy"] == np.__version__
    more = config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": 9})})
    assert describe_run(prepare_run(more)).digest == manifest.digest


def test_specs_come_back_from_a_manifest(config):
    plan = prepare_run(config).plan
    listed = list_outputs(plan)
    assert spec_from(listed[0]["spec"]) == plan.outputs[0].spec
    assert listed[-1] == {"kind": "run", "url": plan.run_url}


def test_units_are_checked_with_their_ids(config):
    run_config(config, reporter=SilentReporter(), open_executor=lambda prepared, stages: SerialExecutor(stages))
    run = open_run(prepare_run(config))
    places = run.places
    assert places.num_units()["output-0/0"] == len(BlockGrid(run.stages.plan.output_domain, (4, 8, 8)))
    writer, _ = places._arrays["output-0/0"]
    grid = BlockGrid(run.stages.plan.output_domain, (4, 8, 8))
    box = grid.box(0)
    strange = np.full(box.shape, 4711, np.uint64)
    record = writer.write(0, box, strange)[0]
    with pytest.raises(CorruptData, match="1 ids that its class does not have, the first is 4711"):
        places.check_unit(UnitSum("output-0/0", record.position, record.crc32c))
    with pytest.raises(CorruptData, match="the journal says"):
        places.check_unit(UnitSum("output-0/0", record.position, 7))


def test_ids_outside_their_range_are_strays():
    labels = np.array([[[0, 2, 3, 2**63 + 1, 2**63 + 2]]], np.uint64)
    assert stray_ids(labels, 3, 2**63 + 1).tolist() == [2, 2**63 + 2]
    assert stray_ids(labels, 1, 2**64 - 1).size == 0
    assert stray_ids(labels, 1, 0).size == 4


def test_deleting_removes_outputs_and_run_files_only(config, tmp_path):
    run_config(config, reporter=SilentReporter(), open_executor=lambda prepared, stages: SerialExecutor(stages))
    plan = prepare_run(config).plan
    places = RunPlaces(plan)
    places.delete_intermediates()
    assert not (tmp_path / "out.zarr.run" / "scratch" / "labels-object").exists()
    assert (tmp_path / "out.zarr.run" / "segments.parquet").exists()
    places.delete_outputs(list_outputs(plan))
    assert not (tmp_path / "out.zarr").exists()
    assert not (tmp_path / "out.zarr.run" / "segments.parquet").exists()
    assert (tmp_path / "out.zarr.run" / "manifest.json").exists()
    assert (tmp_path / "em.zarr").exists()
