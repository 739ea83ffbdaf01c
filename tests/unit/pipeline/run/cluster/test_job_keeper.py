"""What the keeper concludes from the queue's answers; the cluster is a stand-in for dask's SpecCluster."""

import asyncio
from types import SimpleNamespace

import pytest
from distributed import Status

from pipeline.errors import WorkersUnavailable
from pipeline.run.cluster import job_keeper
from pipeline.run.cluster.job_keeper import JobKeeper, list_jobs


class FakeCluster:
    """Holds jobs by name; what is missing is submitted by `scale`."""

    def __init__(self, *names):
        self.worker_spec = dict.fromkeys(names)
        self.workers = {}
        self.scheduler_info = {"workers": {}}
        self.submitted = 0
        self.closed = []
        self.scale(len(names))

    def scale(self, count):
        assert count == len(self.worker_spec)
        for name in self.worker_spec:
            if name not in self.workers:
                self.submitted += 1
                self.workers[name] = self._job(str(self.submitted))

    def _job(self, job_id):
        async def close():
            self.closed.append(job_id)

        return SimpleNamespace(job_id=job_id, status=Status.running, close=close)

    def sync(self, function, *arguments):
        return asyncio.run(function(*arguments))

    def connect(self, *names):
        self.scheduler_info["workers"] = {f"tcp://{name}": {"name": name} for name in names}


@pytest.fixture
def keeper(monkeypatch):
    cluster = FakeCluster("gpu-0", "gpu-1")
    alive = {"1", "2"}
    monkeypatch.setattr(job_keeper, "list_jobs", lambda command: alive)
    found = JobKeeper(cluster, ["squeue"], poll_s=60, logs="/logs")
    return found, cluster, alive


def test_nothing_happens_while_all_jobs_are_there(keeper):
    keeper, cluster, _ = keeper
    keeper.look()
    assert (cluster.submitted, cluster.closed) == (2, [])


def test_a_job_that_ended_is_submitted_again(keeper):
    keeper, cluster, alive = keeper
    alive.discard("2")
    keeper.look()
    assert cluster.workers["gpu-1"].job_id == "3"
    assert cluster.workers["gpu-0"].job_id == "1"


def test_a_job_that_dask_dropped_is_submitted_again(keeper):
    keeper, cluster, _ = keeper
    del cluster.workers["gpu-0"]
    keeper.look()
    assert cluster.submitted == 3


def test_a_job_that_was_refused_is_submitted_again(keeper):
    keeper, cluster, _ = keeper
    cluster.workers["gpu-0"].job_id = None
    keeper.look()
    assert cluster.submitted == 2
    cluster.workers["gpu-0"].status = Status.failed
    keeper.look()
    assert cluster.submitted == 3


def test_a_queue_that_does_not_answer_is_no_reason_to_act(keeper, monkeypatch):
    keeper, cluster, _ = keeper
    monkeypatch.setattr(job_keeper, "list_jobs", lambda command: None)
    keeper.look()
    assert cluster.submitted == 2


def test_jobs_that_die_unborn_are_not_submitted_for_ever(keeper):
    keeper, cluster, alive = keeper
    alive.clear()
    for _ in range(9):
        keeper.look()
    # Two at first, then two looks that replace both; after the third nobody hopes any more.
    assert cluster.submitted == 6
    with pytest.raises(
        WorkersUnavailable, match="6 jobs in a row ended before their worker came; their output in /logs"
    ):
        keeper.check_health()


def test_jobs_that_end_after_work_are_replaced_for_ever(keeper):
    keeper, cluster, alive = keeper
    cluster.connect("gpu-0", "gpu-1-0", "gpu-1-1")
    for _ in range(20):
        alive.clear()
        alive.update(job.job_id for job in cluster.workers.values())
        keeper.look()
        alive.clear()
        keeper.look()
    keeper.check_health()
    assert cluster.submitted == 42


def test_what_the_queue_says():
    assert list_jobs(["printf", "12\\n 13\\n\\n"]) == {"12", "13"}
    assert list_jobs(["false"]) is None
    assert list_jobs(["no-such-command-anywhere"]) is None
