import pytest

from pipeline.run.completion import Completion, TaskResult
from pipeline.run.loop import Tally
from pipeline.run.stream import StageCounts, Task
from pipeline.run.summary import summarize


def test_sums_over_workers_and_stages():
    tally = Tally()
    tally.started_s -= 10.0
    for index, worker in enumerate(["a", "b", "a"]):
        result = TaskResult(seconds={"model_s": 4.0}, counters={"voxels": 100, "model_voxels": 130})
        done = Completion(Task("predict", index), result, None, worker, 5.0, 1000 * (index + 1))
        tally.take_up(done, result)
    relabel = TaskResult(seconds={"write_s": 1.0}, counters={"voxels": 7})
    tally.take_up(Completion(Task("relabel", 0), relabel, None, "b", 1.5, 10), relabel)
    summary = summarize("complete", {"predict": StageCounts(3, 3, 0, 0, 0)}, tally)
    assert (summary.core_voxels, summary.model_voxels) == (300, 390)
    assert summary.seconds_by_stage == {"predict": 15.0, "relabel": 1.5}
    assert summary.peak_bytes_by_worker == {"a": 3000, "b": 2000}
    assert summary.model_seconds == 12.0
    assert summary.wall_times_workers_per_model_second == pytest.approx(20 / 12, abs=0.01)
    assert summary.busy_fraction_by_worker["a"] == pytest.approx(0.8, abs=0.01)
    assert summary.core_voxels_per_second == pytest.approx(30, abs=0.5)


def test_what_comes_after_the_model_does_not_dilute_the_busy_share():
    tally = Tally()
    tally.started_s -= 10.0
    predicted = TaskResult(seconds={"model_s": 9.0})
    tally.take_up(Completion(Task("predict", 0), predicted, None, "a", 9.5), predicted)
    tally.started_s, tally.last_model_s = tally.started_s - 30.0, tally.last_model_s - 30.0
    written = TaskResult(seconds={"write_s": 30.0})
    tally.take_up(Completion(Task("relabel", 0), written, None, "b", 30.0), written)
    summary = summarize("complete", {}, tally)
    assert summary.wall_seconds == pytest.approx(40, abs=0.5)
    assert summary.busy_fraction_by_worker == {"a": pytest.approx(0.9, abs=0.01), "b": 0.0}


def test_a_run_without_a_model_has_no_ratio():
    summary = summarize("already complete", {}, Tally())
    assert summary.wall_times_workers_per_model_second is None
    assert summary.core_voxels_per_second is None
