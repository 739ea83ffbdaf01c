import pytest

from pipeline.errors import RunLocked
from pipeline.ledger.journal import (
    FLUSH_RECORDS,
    Journal,
    StageJournal,
    decode_segment,
    encode_segment,
    segment_key,
)
from pipeline.ledger.record import TaskRecord, UnitSum

MINE = lambda: True  # noqa: E731
LOST = lambda: False  # noqa: E731


def written(index):
    return TaskRecord(index, "written", (UnitSum("out", (0, 1, index), 7 * index),), 0.25)


def test_what_was_flushed_is_replayed(store):
    first = StageJournal(store, "label", 13)
    for index in (2, 3, 5):
        first.add(written(index))
        first.flush(MINE)
    first.add(TaskRecord(7, "failed", error="StoreFull: no space"))
    first.flush(MINE)
    first.add(written(11))  # lost: never flushed

    second = StageJournal(store, "label", 13)
    assert second.replay() == 4
    assert [index for index in range(13) if index in second.done] == [2, 3, 5]
    assert second.failed == {7: "StoreFull: no space"}
    assert [record.index for record in second.latest_records()] == [7, 5, 3, 2]


def test_a_later_success_clears_a_failure_and_redo_takes_back(store):
    journal = StageJournal(store, "label", 13)
    journal.add(TaskRecord(3, "failed", error="x"))
    journal.add(written(3))
    journal.add(written(5))
    journal.add(TaskRecord(5, "redo"))
    journal.flush(MINE)
    again = StageJournal(store, "label", 13)
    again.replay()
    assert (3 in again.done, 5 in again.done, again.failed) == (True, False, {})


def test_tasks_that_left_nothing_are_known_after_a_replay(store):
    journal = StageJournal(store, "label", 13)
    for index in (2, 3, 5, 7):
        journal.add(TaskRecord(index, "empty"))
    journal.add(TaskRecord(5, "redo"))
    journal.add(written(7))
    journal.flush(MINE)
    again = StageJournal(store, "label", 13)
    again.replay()
    assert [index for index in range(13) if index in again.empty] == [2, 3]


def test_the_latest_record_of_a_task_counts(store):
    journal = StageJournal(store, "label", 13)
    journal.add(TaskRecord(3, "failed", error="x"))
    journal.flush(MINE)
    journal.add(TaskRecord(5, "empty"))
    journal.add(written(3))
    journal.add(TaskRecord(5, "redo"))
    journal.flush(MINE)
    assert {record.index: record.outcome for record in journal.latest_records()} == {3: "written", 5: "redo"}


def test_deleting_leaves_no_segment_behind(store):
    journal = StageJournal(store, "label", 13)
    for index in range(5):
        journal.add(written(index))
        journal.flush(MINE)
    journal.delete()
    assert store.objects == {}
    again = StageJournal(store, "label", 13)
    assert again.replay() == 0


@pytest.mark.parametrize("keep", [0, 1, 40, -1, -3])
def test_a_torn_segment_is_passed_over(store, keep):
    journal = StageJournal(store, "label", 13)
    for index in (2, 3, 5):
        journal.add(written(index))
        journal.flush(MINE)
    key = segment_key("label", 1)
    store.objects[key] = store.objects[key][:keep] if keep != -1 else b"junk" + store.objects[key]
    again = StageJournal(store, "label", 13)
    again.replay()
    assert [index for index in range(13) if index in again.done] == [2, 5]
    again.add(written(3))
    again.flush(MINE)
    assert segment_key("label", 3) in store.objects


def test_segments_are_whole_or_nothing():
    data = encode_segment([written(1), written(2)])
    assert decode_segment(data) == [written(1), written(2)]
    assert all(decode_segment(data[:cut]) == [] for cut in range(len(data) - 1))


def test_a_driver_that_lost_the_lease_cannot_write(store):
    old, new = StageJournal(store, "label", 13), StageJournal(store, "label", 13)
    new.add(written(2))
    new.flush(MINE)
    old.add(written(3))
    with pytest.raises(RunLocked, match="another driver has taken over"):
        old.flush(LOST)
    assert len(store.objects) == 1


def test_a_late_segment_of_the_driver_before_is_taken_in(store):
    old, new = StageJournal(store, "label", 13), StageJournal(store, "label", 13)
    old.add(written(3))
    old.flush(MINE)
    new.add(written(2))
    new.flush(MINE)
    assert [index for index in range(13) if index in new.done] == [2, 3]
    assert decode_segment(store.objects[segment_key("label", 1)]) == [written(2)]


def test_replay_reads_segments_by_number_and_few_beyond_the_end(store):
    journal = StageJournal(store, "label", 103)
    for index in range(50):
        journal.add(written(index))
        journal.flush(MINE)
    store.num_gets = 0
    again = StageJournal(store, "label", 103)
    again.replay()
    assert len(again.done) == 50
    assert store.num_gets <= 60


def test_flush_comes_by_age_and_by_count(store):
    now = [0.0]
    journal = Journal(store, {"label": 100_003}, clock=lambda: now[0])
    journal.add("label", written(0))
    assert not journal.flush_if_due(MINE)
    now[0] = 2.5
    assert journal.flush_if_due(MINE)
    for index in range(FLUSH_RECORDS):
        journal.add("label", written(index))
    assert journal.flush_if_due(MINE)
    now[0] = 1_000_000.0
    assert journal.flush_if_due(MINE)
    journal.add("label", written(1))
    now[0] += 59.0
    assert not journal.flush_if_due(MINE)
    now[0] += 2.0
    assert journal.flush_if_due(MINE)


def test_complete_means_every_stage(store):
    journal = Journal(store, {"label": 2, "resolve": 1})
    journal.add("label", written(0))
    journal.add("label", TaskRecord(1, "empty"))
    assert not journal.is_complete
    journal.add("resolve", written(0))
    assert journal.is_complete
