"""Predict, and what label makes of stored probabilities."""

import io
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from scipy import ndimage

from pipeline.errors import DeviceOutOfMemory, IntermediateLost, OurError
from pipeline.geometry import Box
from pipeline.stages import label, layout, predict
from pipeline.stages.context import TaskContext
from pipeline.storage import StorageOptions


def whole_of(run, output):
    spec = run.plan.outputs[output].spec
    return run.context.writers[output].read(0, Box.of_shape(spec.shape(0)))


def assert_same_up_to_names(found, expected):
    pairs = np.unique(np.stack([found.ravel(), expected.ravel().astype(np.uint64)]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert not ((pairs[0] == 0) ^ (pairs[1] == 0)).any()


def test_two_classes_equal_the_whole_and_share_no_id(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image)
    run.run_all()
    bright, dark = whole_of(run, 0), whole_of(run, 1)
    assert_same_up_to_names(bright, ndimage.label(blob_image >= 128)[0])
    assert_same_up_to_names(dark, ndimage.label(255 - blob_image >= 230)[0])
    assert dark[dark > 0].min() == bright.max() + 1
    table = pq.read_table(io.BytesIO(run.context.objects.get("segments.parquet"))).to_pydict()
    assert table["id"] == list(range(1, int(dark.max()) + 1))
    assert table["class"] == ["bright"] * int(bright.max()) + ["dark"] * int(dark.max() - bright.max())


def test_probabilities_are_written_once_and_do_not_depend_on_the_blocks(make_two_class_run, blob_image):
    working = (16.0, 10.0, 10.0)
    found = []
    for name, core in (("one", [48, 64, 64]), ("many", [8, 16, 24])):
        run = make_two_class_run(blob_image, name, working_nm=working, plan={"predict_block_zyx": core})
        run.context.create()
        run.run_stage(predict)
        found.append(run.context.probabilities.read(run.plan.working_domain))
    assert found[0].any()
    assert (found[0] == found[1]).all()


def test_intermediates_of_a_large_volume_have_a_file_per_block(make_two_class_run, blob_image, monkeypatch):
    loose = make_two_class_run(blob_image, "loose")
    loose.run_all()
    monkeypatch.setattr(layout, "_MAX_LOOSE_CHUNKS", 0)
    sharded = make_two_class_run(blob_image, "sharded")
    sharded.run_all()
    for output in (0, 1):
        np.testing.assert_array_equal(whole_of(sharded, output), whole_of(loose, output))
    folders = [path for path in (Path(sharded.plan.run_url) / "scratch").iterdir() if path.name != "probabilities"]
    assert len(folders) == 2
    for folder in folders:
        files = [path for path in (folder / "c").rglob("*") if path.is_file()]
        assert len(files) == len(sharded.plan.label_grid)


def test_labels_on_another_lattice_do_not_depend_on_the_blocks(make_two_class_run, blob_image):
    working = (16.0, 10.0, 10.0)
    whole = make_two_class_run(blob_image, "whole", working_nm=working, plan={"block_zyx": [64, 128, 128]})
    parts = make_two_class_run(blob_image, "parts", working_nm=working, plan={"block_zyx": [8, 16, 16]})
    whole.run_all()
    parts.run_all()
    assert (len(whole.plan.label_grid), len(parts.plan.label_grid)) == (1, 6 * 5 * 5)
    assert whole_of(whole, 0).max() > 5
    for output in (0, 1):
        assert_same_up_to_names(whole_of(parts, output), whole_of(whole, output))


def test_the_model_gets_its_context_inside_the_volume(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image)
    run.context.create()
    reports = run.run_stage(predict)
    for report, (box, core, bounds, domain) in zip(reports, run.context.segmenter.calls, strict=True):
        assert core == run.plan.predict_grid.box(report.index)
        assert box == core.grown((2, 2, 2)).intersection(bounds)
        assert domain == run.plan.working_domain
        assert report.counters == {"voxels": core.num_voxels, "model_voxels": box.num_voxels}
        assert set(report.seconds) == {"read_s", "compute_s", "model_s", "write_s"}


def test_blocks_outside_the_mask_are_skipped_and_counted(make_two_class_run, blob_image, tmp_path):
    mask = np.zeros((21, 34, 36), np.uint8)
    mask[:, :, :10] = 1
    array = zarr.create_array(str(tmp_path / "mask.zarr"), shape=mask.shape, dtype=mask.dtype)
    array[:] = mask
    section = {"mask_url": str(tmp_path / "mask.zarr"), "mask_voxel_size_zyx_nm": [24.0, 16.0, 16.0]}
    run = make_two_class_run(blob_image, image=section)
    reports = run.run_all()["predict"]
    outside = [report for report in reports if report.counters.get("blocks_outside_mask")]
    assert {run.plan.predict_grid.box(report.index).start[2] for report in outside} == {40}
    assert len(outside) == len(reports) // 2
    assert not whole_of(run, 0)[:, :, 40:].any()
    assert whole_of(run, 0)[:, :, :40].any()


def test_a_block_of_one_grey_is_noted_and_a_lost_chunk_is_no_background(make_two_class_run, blob_image):
    image = blob_image.copy()
    image[:, :, 36:] = 3
    run = make_two_class_run(image)
    run.context.create()
    blank = [report for report in run.run_stage(predict) if report.counters.get("blocks_of_one_grey")]
    assert blank
    run.run_stage(label)
    chunks = Path(run.plan.run_url) / "scratch" / "probabilities" / "c"
    shutil.rmtree(chunks / "0" / "0")
    with pytest.raises(IntermediateLost, match=r"was written and is gone.*\[made by predict-0\]$"):
        label.run(0, run.plan, run.context)


def test_the_device_lock_is_held_around_the_model_alone(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image)
    lock = threading.Lock()
    held = []
    segmenter, predict_of_stub = run.context.segmenter, run.context.segmenter.predict

    def spy(*arguments, **settings):
        held.append(lock.locked())
        return predict_of_stub(*arguments, **settings)

    segmenter.predict = spy
    context = TaskContext(
        run.plan, options=StorageOptions(), demand=run.context.demand, segmenter=segmenter, device_lock=lock
    )
    context.create()
    predict.run(0, run.plan, context)
    assert held == [True]
    assert not lock.locked()


@pytest.mark.parametrize(
    ("room", "tried", "remark"), [(5, [6, 3], "3 tiles"), (1, [6, 3, 1], "1 tiles"), (6, [6], None)]
)
def test_a_full_device_gets_fewer_tiles_per_call_and_the_block_is_not_lost(
    make_two_class_run, blob_image, room, tried, remark
):
    run = make_two_class_run(blob_image)
    run.context.segmenter.room = room
    run.context.create()
    report = predict.run(0, run.plan, run.context)
    assert run.context.segmenter.batches == tried
    assert report.outcome == "written"
    assert report.remark == (remark and f"{remark} per model call in place of 6")


def test_a_device_without_room_for_one_tile_is_told(make_two_class_run, blob_image):
    run = make_two_class_run(blob_image)
    run.context.segmenter.room = 0
    run.context.create()
    with pytest.raises(DeviceOutOfMemory, match="no room for 1 tiles; so with one tile per call"):
        predict.run(0, run.plan, run.context)


def test_a_fused_plan_has_no_predict_tasks(make_run, blob_image):
    run = make_run(blob_image)
    assert len(predict.tasks(run.plan)) == 0
    with pytest.raises(OurError, match="no predict stage"):
        predict.run(0, run.plan, run.context)


def test_a_worker_without_model_says_so(make_run, blob_image):
    run = make_run(blob_image)
    bare = TaskContext(run.plan, options=StorageOptions())
    with pytest.raises(OurError, match="opened without"):
        label.run(0, run.plan, bare)
