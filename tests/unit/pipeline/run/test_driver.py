import json
from dataclasses import replace

import pytest

from pipeline.errors import (
    CorruptData,
    IntermediateLost,
    ManifestMismatch,
    RunLocked,
    StoreFull,
    StoreUnavailable,
    TaskFailed,
    VolumeNotFound,
    WeightsError,
)
from pipeline.ledger import Journal, Lease, RunState, read_manifest, read_state, write_state
from pipeline.run.clean import clean_run
from pipeline.run.stream import Task
from pipeline.run.verify import verify_run
from pipeline.telemetry import SilentReporter


def num_tasks(fake):
    return sum(spec.num_tasks for spec in fake.specs())


def test_a_whole_run(fake):
    summary = fake.drive()
    assert (summary.status, summary.num_tasks) == ("complete", num_tasks(fake))
    assert len(fake.order) == len(set(fake.order)) == num_tasks(fake)
    assert len(fake.volumes["out/0"]) == 13
    assert fake.marks == [False]
    assert read_state(fake.store).complete
    assert not read_state(fake.store).verified
    document = json.loads(fake.store.objects["summary.json"])
    assert document["stages"]["pyramid"] == {"total": 7, "done": 7, "failed": 0, "blocked": 0}
    assert document["model_seconds"] == pytest.approx(14 * 0.01)
    assert document["peak_bytes_driver"] > 10_000_000


def test_a_complete_run_says_so_and_starts_nothing(fake):
    fake.drive()
    before, opened = len(fake.order), fake.num_opened
    assert fake.drive().status == "already complete"
    assert (len(fake.order), fake.num_opened) == (before, opened)


@pytest.mark.parametrize("num_steps", [0, 1, 5, 20])
def test_a_stopped_run_goes_on_where_it_was(fake, num_steps):
    calls = iter(range(10**6))
    summary = fake.drive(should_stop=lambda: next(calls) >= num_steps)
    assert summary.status == "interrupted"
    assert len(fake.order) == num_steps
    assert fake.drive().status == "complete"
    assert len(fake.order) == len(set(fake.order)) == num_tasks(fake)


def test_a_failure_blocks_what_needs_it_and_the_next_call_tries_again(fake):
    fake.failures = {Task("label", 3): [WeightsError("a NaN")]}
    with pytest.raises(TaskFailed, match=r"1 failed for good \(1 model\) and 21 that(.|\n)*label-3 \[model\] Weights"):
        fake.drive()
    assert json.loads(fake.store.objects["summary.json"])["status"] == "failed"
    assert not read_state(fake.store).complete
    assert fake.drive().status == "complete"
    assert fake.order.count(Task("label", 3)) == 2
    assert fake.order.count(Task("label", 4)) == 1


def test_a_full_disk_ends_the_run_at_once_and_the_next_call_goes_on(fake):
    fake.failures = {Task("label", 3): [StoreFull("no space left")]}
    with pytest.raises(StoreFull, match=r"no space left\. The same command goes on"):
        fake.drive()
    assert len(fake.order) < num_tasks(fake) // 2
    assert fake.drive().status == "complete"


def test_blocks_that_share_a_cause_in_the_world_give_it_to_the_run(fake):
    fake.failures = {Task("label", index): [CorruptData("chunk does not decode")] for index in (3, 5)}
    with pytest.raises(CorruptData, match="2 failed for good"):
        fake.drive()
    fake.failures = {Task("label", 3): [CorruptData("chunk")], Task("label", 5): [VolumeNotFound("no image")]}
    with pytest.raises(TaskFailed, match="2 failed for good"):
        fake.drive()


def test_the_resolved_config_lies_beside_the_manifest_from_the_start(fake):
    fake.failures = {Task("label", 0): [StoreFull("no space left")]}
    with pytest.raises(StoreFull):
        fake.drive()
    assert json.loads(fake.store.objects["config.json"]) == {"cluster": {"workers": 2}}
    fake.drive(restart=True)
    assert "config.json" in fake.store.objects


def test_what_was_lost_on_the_way_is_made_again(fake):
    fake.failures = {Task("relabel", 3): [IntermediateLost("chunk (0, 0, 1) is gone [made by label-3]")]}
    with pytest.raises(IntermediateLost, match="1 failed for good"):
        fake.drive()
    assert fake.drive().status == "complete"
    assert (fake.order.count(Task("label", 3)), fake.order.count(Task("label", 4))) == (2, 1)
    assert fake.order.index(Task("relabel", 3)) < len(fake.order) - 1 - fake.order[::-1].index(Task("label", 3))


def test_what_may_pass_is_tried_again(fake):
    fake.failures = {Task("label", 3): [StoreUnavailable("503")]}
    summary = fake.drive()
    assert (summary.status, summary.num_retried) == ("complete", 1)


def test_other_settings_are_refused_before_anything_is_touched(fake):
    fake.drive()
    before = dict(fake.store.objects)
    changed = fake.manifest(segmenter={"weights_sha256": "bb"})
    with pytest.raises(ManifestMismatch, match=r"segmenter\.weights_sha256 was 'aa'.* is 'bb' now"):
        fake.drive(changed)
    after = {key: data for key, data in fake.store.objects.items() if not key.startswith("lease/")}
    assert after == {key: data for key, data in before.items() if not key.startswith("lease/")}


def test_restart_deletes_what_the_manifest_lists_and_begins_again(fake):
    fake.drive()
    fake.store.put("somebody/elses", b"x")
    fake.deleted.clear()
    changed = fake.manifest(segmenter={"weights_sha256": "bb"}, outputs=({"url": "other", "kind": "volume"},))
    assert fake.drive(changed, restart=True).num_tasks == num_tasks(fake)
    assert fake.deleted == ["out"]
    assert fake.store.exists("somebody/elses")
    assert read_manifest(fake.store) == changed
    assert fake.drive(changed).status == "already complete"


def test_restart_of_nothing_is_a_start(fake):
    assert fake.drive(restart=True).status == "complete"
    assert fake.deleted == []


def test_a_second_driver_is_refused(fake):
    with Lease(fake.store), pytest.raises(RunLocked, match="holds it"):
        fake.drive()
    assert fake.order == []


def test_other_library_versions_are_recorded(fake):
    manifest = fake.manifest(packages={"numpy": "2.1"})
    stops = iter([False, True])
    fake.drive(manifest, should_stop=lambda: next(stops))
    fake.drive(replace(manifest, packages={"numpy": "2.2"}))
    assert read_state(fake.store).reasons_not_bit_reproducible == ["library versions changed: numpy was 2.1, is 2.2"]


def test_a_smaller_batch_is_recorded_in_journal_and_state(fake):
    fake.remarks = {Task("label", 3): "2 tiles per model call in place of 4"}
    fake.drive()
    reasons = ["label: blocks were computed with 2 tiles per model call in place of 4"]
    assert read_state(fake.store).reasons_not_bit_reproducible == reasons
    journal = Journal(fake.store, {spec.name: spec.num_tasks for spec in fake.specs()})
    journal.replay()
    assert [record.index for record in journal.stages["label"].latest_records() if record.remark] == [3]


def test_a_smaller_batch_is_told_even_where_the_driver_was_killed_before_it_could(fake):
    fake.remarks = {Task("label", 3): "2 tiles per model call in place of 4"}
    stops = iter([False] * 6 + [True])
    fake.drive(should_stop=lambda: next(stops))
    write_state(fake.store, RunState())
    fake.drive()
    assert len(read_state(fake.store).reasons_not_bit_reproducible) == 1


def test_what_clean_removed_cannot_be_resumed(fake):
    fake.drive()
    verify_run(fake.store, fake.specs(), fake, SilentReporter())
    clean_run(fake.store, fake)
    state = read_state(fake.store)
    assert (state.cleaned, fake.deleted) == (True, ["scratch"])
    assert fake.drive().status == "already complete"
    assert read_state(fake.store).cleaned
    segment = max(key for key in fake.store.objects if key.startswith("journal/relabel"))
    fake.store.delete(segment)
    with pytest.raises(ManifestMismatch, match="clean"):
        fake.drive()


def test_too_many_failures_end_the_run(fake):
    fake.failures = {Task("label", index): [WeightsError("a NaN")] for index in range(13)}
    with pytest.raises(TaskFailed, match="max_failed_tasks allows 4"):
        fake.drive(max_failed_tasks=4)
    assert len(fake.order) == 5
