import pytest

from pipeline.run import deaths
from pipeline.run.deaths import Deaths, DeathWatch

WORKER, NANNY = "tcp://127.0.0.1:7", "tcp://127.0.0.1:3"


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
    known.note_victim(WORKER, NANNY, "label-1")
    known.note_exit({"worker": WORKER, "nanny": NANNY, "exit_status": status})
    error = known.explain(WORKER)
    is_doubtful = kind == "WorkerDied"
    assert (error.kind, error.retry, error.is_worker_death, error.is_doubtful) == (kind, True, True, is_doubtful)
    assert words in error.message


def test_a_nanny_that_killed_for_memory_is_believed_before_the_signal_it_sent():
    known = Deaths("topic")
    known.note_memory({"worker": WORKER, "pid": 3, "rss": 12_345})
    known.note_exit({"worker": WORKER, "nanny": NANNY, "exit_status": -15})
    assert known.explain(WORKER).kind == "WorkerOutOfMemory"
    assert "12,345 bytes" in known.explain(WORKER).message


def test_the_word_of_a_nanny_is_waited_for_but_not_for_ever():
    now = [0.0]
    known = Deaths("topic", clock=lambda: now[0])
    known.note_victim(WORKER, NANNY, "label-1")
    assert not known.is_explained(WORKER)
    now[0] = deaths.REPORT_S + 0.1
    assert known.is_explained(WORKER)
    assert "nobody could tell why" in known.explain(WORKER).message


def test_who_died_together_is_told():
    known = Deaths("topic")
    known.note_exit({"worker": WORKER, "nanny": NANNY, "exit_status": -11})
    known.note_victim(WORKER, NANNY, "label-1")
    known.note_victim(WORKER, NANNY, "label-1")
    assert not known.explain(WORKER).is_doubtful
    known.note_victim(WORKER, NANNY, "label-2")
    assert known.explain(WORKER).is_doubtful


def test_a_watch_that_is_taken_down_leaves_the_nanny_as_it_was():
    class Process:
        on_exit = None

    class FakeNanny:
        worker_address = WORKER
        address = NANNY
        process = Process()
        events = ()

        def __init__(self):
            self.exits = []

        def _on_worker_exit_sync(self, status):
            self.exits.append(status)

        def log_event(self, topic, event):
            self.events = (*self.events, (topic, event))

    nanny, watch = FakeNanny(), DeathWatch("topic")
    watch.setup(nanny)
    nanny.process.on_exit(-11)
    assert nanny.events == (("topic", {"worker": WORKER, "nanny": NANNY, "exit_status": -11}),)
    watch.teardown(nanny)
    nanny.process.on_exit(0)
    assert (nanny.exits, len(nanny.events)) == ([-11, 0], 1)


def test_a_worker_that_died_before_it_told_its_nanny_its_address_is_found_by_its_nanny():
    known = Deaths("topic")
    known.note_victim(WORKER, NANNY, "label-1")
    known.note_exit({"worker": None, "nanny": NANNY, "exit_status": -11})
    assert known.is_explained(WORKER)
    assert known.explain(WORKER).kind == "WorkerCrashed"
