import pytest

from pipeline.errors import ConfigError, CorruptData, TaskFailed
from pipeline.ledger import read_state
from pipeline.run.clean import clean_run
from pipeline.run.stream import Task
from pipeline.run.verify import verify_run
from pipeline.telemetry import SilentReporter


def verify(fake):
    return verify_run(fake.store, fake.specs(), fake, SilentReporter())


def test_a_whole_run_passes_and_is_marked(fake):
    fake.drive()
    report = verify(fake)
    assert (report.num_units, report.num_tasks, report.num_problems) == ({"out/0": 13, "out/1": 7}, 20, 0)
    assert fake.marks == [False, True]
    assert read_state(fake.store).verified


@pytest.mark.parametrize("damage", [lambda unit: unit.__setitem__(5, b"junk"), lambda unit: unit.pop(5)])
def test_a_damaged_unit_and_what_was_made_from_it_are_done_again(fake, damage):
    fake.drive()
    damage(fake.volumes["out/0"])
    fake.order.clear()
    with pytest.raises(CorruptData, match=r"1 write units are not(.|\n)*relabel-5: out/0 \(0, 0, 5\) is damaged"):
        verify(fake)
    assert not read_state(fake.store).complete
    assert fake.marks[-1] is False
    with pytest.raises(TaskFailed, match="1 of relabel, 1 of pyramid"):
        verify(fake)
    assert fake.drive().status == "complete"
    assert fake.order == [Task("relabel", 5), Task("pyramid", 2)]
    verify(fake)
    assert read_state(fake.store).verified


def test_a_run_that_is_not_done_does_not_pass(fake):
    stops = iter([False] * 3 + [True])
    fake.drive(should_stop=lambda: next(stops))
    with pytest.raises(TaskFailed, match=r"10 of label, 1 of resolve, 13 of relabel, 7 of pyramid"):
        verify(fake)
    assert fake.marks == [False]


def test_a_unit_without_a_record_is_told(fake):
    fake.drive()
    fake.num_units = lambda: {"out/0": 14, "out/1": 7}
    with pytest.raises(CorruptData, match="output array out/0: 13 write units on record, 14 in its grid"):
        verify(fake)


def test_clean_wants_verify_first(fake):
    fake.drive()
    with pytest.raises(ConfigError, match="verify"):
        clean_run(fake.store, fake)
    assert fake.deleted == []
