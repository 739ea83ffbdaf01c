from pipeline.run.completion import TaskError
from pipeline.run.retries import Retries
from pipeline.run.stream import Task

PASSING = TaskError("StoreUnavailable", "503", retry=True)
LASTING = TaskError("StoreFull", "no space", retry=False)
DEATH = TaskError("WorkerDied", "killed", retry=True, is_worker_death=True)
SHARED_DEATH = TaskError("WorkerDied", "killed", retry=True, is_worker_death=True, is_doubtful=True)
A, B, C = Task("label", 2), Task("label", 3), Task("label", 5)


def test_delays_grow_and_end():
    retries = Retries(2, first_delay_s=1.0)
    assert retries.note_failure(A, PASSING, 10.0)
    assert retries.due(10.9) == []
    assert retries.due(11.0) == [A]
    assert retries.note_failure(A, PASSING, 20.0)
    assert (retries.due(21.9), retries.due(22.0)) == ([], [A])
    assert not retries.note_failure(A, PASSING, 30.0)
    assert retries.num_waiting == 0


def test_a_lasting_error_is_final():
    assert not Retries(9).note_failure(A, LASTING, 0.0)


def test_suspects_run_one_at_a_time():
    retries = Retries(0)
    for task in (A, B, C):
        assert retries.note_failure(task, DEATH, 0.0)
    assert retries.due(0.0) == [A, B, C]
    for task in (A, B, C):
        assert retries.note_failure(task, DEATH, 0.0)
    assert retries.due(0.0) == [A]
    assert retries.due(0.0) == []
    retries.settle(A)
    assert retries.due(0.0) == [B]
    assert not retries.note_failure(B, DEATH, 0.0)
    assert retries.due(0.0) == [C]


def test_attempts_are_counted_and_forgotten():
    retries = Retries(5)
    assert retries.attempts(A) == 1
    retries.note_failure(A, PASSING, 0.0)
    retries.note_failure(A, DEATH, 0.0)
    assert retries.attempts(A) == 3
    retries.settle(A)
    assert retries.attempts(A) == 1


def test_deaths_do_not_use_up_the_retries():
    retries = Retries(1)
    retries.note_failure(A, DEATH, 0.0)
    assert retries.note_failure(A, PASSING, 0.0)
    assert not retries.note_failure(A, PASSING, 0.0)


def test_who_dies_in_company_is_tried_once_more_with_nothing_else_at_work():
    retries = Retries(0)
    for task in (A, B):
        for _ in range(2):
            assert retries.note_failure(task, SHARED_DEATH, 0.0)
            assert retries.due(0.0) == [task]
        assert retries.note_failure(task, SHARED_DEATH, 0.0)
    assert (retries.due(0.0), retries.num_waiting) == ([], 2)
    assert retries.last_resort() == [A]
    assert not retries.note_failure(A, SHARED_DEATH, 0.0)
    assert retries.last_resort() == [B]
    retries.settle(B)
    assert retries.last_resort() == []
