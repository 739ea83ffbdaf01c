import pytest

from pipeline.run import deaths
from pipeline.run.deaths import Deaths, DeathWatch, Process

WORKER, NANNY, PID = "tcp://127.0.0.1:7", "tcp://127.0.0.1:3", 4711
PROCESS = Process.of(WORKER, PID)


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (-11, "WorkerCrashed", "SIGSEGV"),
        (-6, "WorkerCrashed", "SIGABRT"),
        (-9, "WorkerDied", "SIGKILL from outside"),
        (-99, "WorkerDied", "signal 99 from outside"),
        (3, "WorkerDied", "exit status 3"),
    ],
)
def test_the_exit_status_tells_the_cause(status, kind, words):
    known = Deaths("topic")
    known.note_victim(PROCESS, "label-1")
    known.note_exit({"nanny": NANNY, "pid": PID, "exit_status": status})
    error = known.explain(WORKER, PROCESS)
    is_doubtful = kind == "WorkerDied"
    assert (error.kind, error.retry, error.is_worker_death, error.is_doubtful) == (kind, True, True, is_doubtful)
    assert words in error.message


def test_a_nanny_that_killed_for_memory_is_believed_before_the_signal_it_sent():
    known = Deaths("topic")
    known.note_memory({"worker": WORKER, "pid": PID, "rss": 12_345})
    known.note_exit({"nanny": NANNY, "pid": PID, "exit_status": -15})
    assert known.explain(WORKER, PROCESS).kind == "WorkerOutOfMemory"
    assert "12,345 bytes" in known.explain(WORKER, PROCESS).message


def test_the_word_of_a_nanny_is_waited_for_but_not_for_ever():
    now = [0.0]
    known = Deaths("topic", clock=lambda: now[0])
    known.note_victim(PROCESS, "label-1")
    assert not known.is_explained(PROCESS)
    now[0] = deaths.REPORT_S + 0.1
    assert known.is_explained(PROCESS)
    assert "nobody could tell why" in known.explain(WORKER, PROCESS).message


def test_who_died_together_is_told():
    known = Deaths("topic")
    known.note_exit({"nanny": NANNY, "pid": PID, "exit_status": -11})
    known.note_victim(PROCESS, "label-1")
    known.note_victim(PROCESS, "label-1")
    assert not known.explain(WORKER, PROCESS).is_doubtful
    known.note_victim(PROCESS, "label-2")
    assert known.explain(WORKER, PROCESS).is_doubtful


class FakeProcess:
    pid, exitcode = PID, -11


class FakeKeeper:
    """A nanny's `WorkerProcess`."""

    def __init__(self):
        self.process = FakeProcess()
        self.num_stopped = 0

    def mark_stopped(self):
        self.process = None
        self.num_stopped += 1


class FakeNanny:
    worker_address = WORKER
    address = NANNY

    def __init__(self):
        self.process = FakeKeeper()
        self.events = []

    def log_event(self, topic, event):
        self.events.append((topic, event))


def test_a_watch_tells_every_end_and_leaves_the_nanny_as_it_was():
    nanny, watch = FakeNanny(), DeathWatch("topic")
    watch.setup(nanny)
    nanny.process.mark_stopped()
    assert nanny.events == [("topic", {"nanny": NANNY, "pid": PID, "exit_status": -11})]
    watch.teardown(nanny)
    nanny.process.process = FakeProcess()
    nanny.process.mark_stopped()
    assert (nanny.process.num_stopped, len(nanny.events)) == (2, 1)


def test_a_nanny_that_cannot_tell_starts_its_worker_anew_all_the_same(monkeypatch):
    nanny = FakeNanny()
    monkeypatch.setattr(nanny, "log_event", lambda topic, event: 1 / 0)
    DeathWatch("topic").setup(nanny)
    with pytest.raises(ZeroDivisionError):
        nanny.process.mark_stopped()
    assert nanny.process.num_stopped == 1


def test_a_worker_at_an_address_of_one_that_died_before_is_another_process():
    known = Deaths("topic")
    known.note_exit({"nanny": NANNY, "pid": PID, "exit_status": -11})
    later = Process.of(WORKER, PID + 1)
    known.note_victim(later, "label-1")
    assert not known.is_explained(later)
    known.note_exit({"nanny": NANNY, "pid": PID + 1, "exit_status": 3})
    assert known.explain(WORKER, later).message.endswith("exit status 3")


def test_memory_of_a_process_without_an_address_is_left_out():
    known = Deaths("topic")
    known.note_memory({"worker": None, "pid": PID, "rss": 1})
    known.note_exit({"nanny": NANNY, "pid": PID, "exit_status": -15})
    assert known.explain(WORKER, PROCESS).kind == "WorkerDied"
