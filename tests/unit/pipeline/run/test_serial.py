import pytest

from pipeline.run.serial import SerialExecutor
from pipeline.run.stream import Task


def test_one_task_per_wait_in_order(fake):
    with SerialExecutor(fake) as executor:
        executor.submit([Task("label", 2), Task("label", 3), Task("label", 5)])
        assert [executor.wait(0.0)[0].task.index for _ in range(2)] == [2, 3]
        assert executor.cancel() == 1
        assert executor.wait(0.0) == []
        executor.replace_worker("serial")
        executor.submit([Task("label", 7)])
        executor.wait(0.0)
    assert fake.num_opened == 2


def test_a_bug_is_raised(fake):
    fake.failures = {Task("label", 2): [ZeroDivisionError()]}
    with SerialExecutor(fake) as executor:
        executor.submit([Task("label", 2)])
        with pytest.raises(ZeroDivisionError):
            executor.wait(0.0)


def test_every_lane_has_a_window(fake):
    assert SerialExecutor(fake).windows.keys() == {"cpu"}
