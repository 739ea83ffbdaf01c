import subprocess
import sys
import threading

from pipeline.errors import ConfigError, StoreUnavailable, WeightsError
from pipeline.run.completion import TaskResult, describe_error
from pipeline.run.stream import Task
from pipeline.run.work import WorkerRoom, peak_memory_bytes


class Stages:
    def __init__(self, errors=()):
        self.errors = list(errors)
        self.num_opened = self.num_closed = 0

    def open(self):
        self.num_opened += 1
        if self.errors:
            raise self.errors.pop(0)
        return self

    def run(self, task):
        if task.index == 3:
            raise StoreUnavailable("503")
        if task.index == 5:
            raise MemoryError
        return TaskResult(is_empty=task.index == 7)

    def close(self):
        self.num_closed += 1


def tasks(*indexes):
    return [Task("label", index) for index in indexes]


def test_an_error_of_one_task_does_not_keep_the_others():
    stages = Stages()
    room = WorkerRoom(stages)
    found = room.run_all(tasks(2, 3, 5, 7), "tcp://w")
    assert [completion.result is None for completion in found] == [False, True, True, False]
    assert str(found[1].error) == "StoreUnavailable: 503"
    assert found[2].error.retry
    assert found[3].result.is_empty
    assert {completion.worker for completion in found} == {"tcp://w"}
    room.close()
    assert (stages.num_opened, stages.num_closed) == (1, 1)


def test_many_threads_open_once():
    stages = Stages()
    room = WorkerRoom(stages)
    room.open_early()
    threads = [threading.Thread(target=room.run_all, args=(tasks(2), "w")) for _ in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stages.num_opened == 1


def test_what_keeps_the_stages_from_opening_is_told_by_the_task():
    room = WorkerRoom(Stages([WeightsError("damaged")]))
    assert room.run_all(tasks(2), "w")[0].error.kind == "WeightsError"
    assert room.run_all(tasks(2), "w")[0].error is None


def test_errors_become_data():
    assert not describe_error(ConfigError("x")).retry
    bug = describe_error(KeyError("a"))
    assert (bug.kind, bug.message, bug.retry) == ("OurError", "unexpected KeyError: 'a'", False)


def test_memory_is_in_bytes():
    assert 10**7 < peak_memory_bytes() < 10**12


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it():
    held = b"x" * (400 << 20)
    script = "from pipeline.run.work import peak_memory_bytes; print(peak_memory_bytes())"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert 10 << 20 < int(done.stdout) < len(held) < peak_memory_bytes()


def test_the_peak_is_known_without_the_status_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.run.work._STATUS", tmp_path / "status")
    unknown = peak_memory_bytes()
    (tmp_path / "status").write_text("Name: x\nVmHWM:\t  2048 kB\n")
    assert peak_memory_bytes() == 2 << 20 < unknown
