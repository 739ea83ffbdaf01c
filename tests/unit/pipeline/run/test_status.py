import json

import pytest

from pipeline.errors import TaskFailed, VolumeNotFound, WeightsError
from pipeline.ledger import Lease
from pipeline.run.progress import ProgressNotes
from pipeline.run.status import read_status
from pipeline.run.stream import Task
from pipeline.telemetry import SilentReporter


def test_no_run_is_told(fake):
    with pytest.raises(VolumeNotFound, match="no run here"):
        read_status(fake.store)


def test_a_complete_run(fake):
    fake.drive()
    status = read_status(fake.store)
    assert [(stage.name, stage.done, stage.total, stage.to_do) for stage in status.stages] == [
        ("label", 13, 13, 0),
        ("resolve", 1, 1, 0),
        ("relabel", 13, 13, 0),
        ("pyramid", 7, 7, 0),
    ]
    assert status.state.complete
    assert (status.holder, status.dead_holder, status.seconds_left) == (None, None, None)
    assert status.busy_fraction_by_worker == json.loads(fake.store.objects["summary.json"])["busy_fraction_by_worker"]
    assert status.busy_fraction_by_worker["serial"] > 0


def test_failed_blocks_come_with_their_errors(fake):
    fake.failures = {Task("label", 3): [WeightsError("a NaN")]}
    with pytest.raises(TaskFailed):
        fake.drive()
    label = read_status(fake.store).stages[0]
    assert (label.done, label.empty, label.failed, label.to_do) == (12, 3, {3: "WeightsError: a NaN"}, 0)


def test_a_run_at_work_tells_rate_and_time_left(fake):
    stops = iter([False] * 5 + [True])
    fake.drive(should_stop=lambda: next(stops))
    document = fake.store.objects["progress.json"]
    assert b'"num_finished_by_stage"' in document
    fake.store.put(
        "progress.json",
        b'{"num_finished_by_stage": {"label": 4}, "wall_seconds": 8.0, "running": {"label": 2},'
        b' "busy_fraction_by_worker": {"a": 0.9}}',
    )
    with Lease(fake.store):
        status = read_status(fake.store)
    label = status.stages[0]
    assert (label.running, label.tasks_per_second, label.seconds_left) == (2, 0.5, 16.0)
    assert (label.to_do, status.seconds_left) == (6, 16.0)
    assert status.holder is not None
    assert status.busy_fraction_by_worker == {"a": 0.9}


def test_progress_is_written_at_intervals(fake):
    from pipeline.run.loop import Tally
    from pipeline.run.stream import StageCounts

    now, reporter = [0.0], SilentReporter()
    notes = ProgressNotes(fake.store, reporter, clock=lambda: now[0])
    for done in range(5):
        notes({"label": StageCounts(13, done, 0, 1, 2)}, Tally())
        now[0] += 2.0
        if done == 0:
            fake.store.delete("progress.json")
        if done == 2:
            assert not fake.store.exists("progress.json")
    assert fake.store.exists("progress.json")
    assert reporter.latest.stages["label"].done == 4
    assert reporter.latest.stages["label"].failed == 1
