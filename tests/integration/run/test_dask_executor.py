"""Real worker processes: what they bring back, and what becomes of tasks whose worker dies."""

import os
import re

import pytest
from noop_stages import NoopStages

from pipeline.config.clusters import SchedulerCluster
from pipeline.errors import ConfigError, SchedulerUnavailable, TaskFailed
from pipeline.ledger import Journal, Lease
from pipeline.run.cluster.local import LocalWorkers, local_cluster
from pipeline.run.cluster.scheduler import remote_cluster
from pipeline.run.dask_executor import DaskExecutor
from pipeline.run.loop import TaskLoop
from pipeline.run.serial import SerialExecutor
from pipeline.run.stream import Task
from pipeline.storage.objects import ObjectStore


@pytest.fixture(scope="module")
def client():
    with local_cluster(LocalWorkers(2, 2, 2**30)) as found:
        yield found.client


def carry_out(client, stages, tmp_path, **options):
    # One that the test before has killed may still be starting anew.
    client.wait_for_workers(2, timeout=60)
    store = ObjectStore(str(tmp_path / "out.run"))
    journal = Journal(store, {spec.name: spec.num_tasks for spec in stages.specs()})
    journal.replay()
    arguments = {"retries": 2, "max_failed_tasks": 100, "on_change": lambda counts, tally: None, **options}
    with Lease(store) as lease, DaskExecutor(client, stages, tasks_per_worker=4) as executor:
        loop = TaskLoop(list(stages.specs()), journal, lease, executor, **arguments)
        assert loop.run(lambda: False)
    return journal, loop


def test_every_task_is_carried_out_once(client, tmp_path, marks):
    journal, loop = carry_out(client, NoopStages(53, str(tmp_path), group_size=3), tmp_path)
    assert journal.is_complete
    assert set(marks().values()) == {1}
    assert len(marks()) == 53 + 53 + 1
    assert loop.tally.counters == {"predict.tasks": 53, "label.tasks": 53, "resolve.tasks": 1}
    assert 1 <= len(loop.tally.peak_bytes_by_worker) <= 2


def test_what_may_pass_is_tried_again_and_what_may_not_is_not(client, tmp_path, marks):
    faults = {
        Task("predict", 3): ("unavailable", 2),
        Task("label", 5): ("weights", 99),
        Task("label", 7): ("bug", 99),
        Task("label", 11): ("unavailable", 99),
    }
    journal, loop = carry_out(client, NoopStages(17, str(tmp_path), faults), tmp_path)
    assert journal.stages["predict"].done.is_full
    assert journal.stages["label"].failed == {
        5: "WeightsError: label-5 cannot",
        7: "OurError: unexpected ValueError: label-7 cannot",
        11: "StoreUnavailable: label-11 cannot",
    }
    assert loop.counts["resolve"].blocked == 1
    tried = {path.name: path.stat().st_size for path in tmp_path.glob("tried-*")}
    assert tried == {"tried-predict-3": 3, "tried-label-5": 1, "tried-label-7": 1, "tried-label-11": 3}


def test_a_worker_that_dies_once_costs_nothing(client, tmp_path, marks):
    faults = {Task("predict", 5): ("kill", 1), Task("label", 11): ("kill", 1)}
    journal, loop = carry_out(client, NoopStages(29, str(tmp_path), faults), tmp_path)
    assert journal.is_complete
    assert loop.tally.num_retried >= 2


@pytest.mark.parametrize("what", ["lost", "full"])
def test_a_worker_whose_device_is_of_no_more_use_is_started_anew(client, tmp_path, what):
    # One that the test before has killed may still be starting anew.
    client.wait_for_workers(2, timeout=60)
    before = set(client.run(os.getpid).values())
    journal, _ = carry_out(client, NoopStages(29, str(tmp_path), {Task("predict", 5): (what, 1)}), tmp_path)
    assert journal.is_complete
    client.wait_for_workers(2, timeout=60)
    assert len(before & set(client.run(os.getpid).values())) == 1


@pytest.mark.parametrize(
    ("what", "cause"),
    [
        ("segfault", r"WorkerCrashed: worker tcp://\S+ crashed with SIGSEGV: compiled code failed"),
        ("hoard", r"WorkerOutOfMemory: worker tcp://\S+ was ended for memory: it held [\d,]+ bytes"),
        ("kill", r"WorkerDied: worker tcp://\S+ was killed by SIGKILL from outside"),
        ("exit", r"WorkerDied: worker tcp://\S+ ended by itself with exit status 3"),
    ],
)
def test_a_task_that_kills_its_workers_is_set_aside_with_the_cause_and_its_neighbors_are_cleared(tmp_path, what, cause):
    """Two poisonous tasks, and others beside them on the same workers; the same command later does only those two."""
    faults = {Task("label", 7): (what, 99), Task("label", 8): (what, 99)}
    with local_cluster(LocalWorkers(2, 2, 2**30)) as own:
        journal, _ = carry_out(own.client, NoopStages(29, str(tmp_path), faults), tmp_path)
    assert sorted(journal.stages["label"].failed) == [7, 8]
    for error in journal.stages["label"].failed.values():
        assert re.match(cause, error)
    assert len(journal.stages["label"].done) == 27
    healed = NoopStages(29, str(tmp_path))
    with Lease(ObjectStore(str(tmp_path / "out.run"))) as lease, SerialExecutor(healed) as executor:
        loop = TaskLoop(
            list(healed.specs()), journal, lease, executor, retries=0, max_failed_tasks=9, on_change=lambda *_: None
        )
        assert loop.run(lambda: False)
    assert journal.is_complete
    assert loop.tally.num_by_stage == {"label": 2, "resolve": 1}


def test_too_many_failures_end_the_run(client, tmp_path):
    faults = {Task("label", index): ("weights", 99) for index in range(29)}
    with pytest.raises(TaskFailed, match=r"max_failed_tasks allows 5"):
        carry_out(client, NoopStages(29, str(tmp_path), faults), tmp_path, max_failed_tasks=5)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_is_not_there_is_told_in_seconds(address):
    section = SchedulerCluster(kind="scheduler", address=address)
    with pytest.raises(SchedulerUnavailable, match="nobody answered within 5 s"), remote_cluster(section):
        pass


def test_a_worker_with_other_code_ends_the_run_naming_both(client, tmp_path, monkeypatch):
    from pipeline.run import dask_executor
    from pipeline.run.handshake import CodeIdentity

    other = (CodeIdentity("pipeline", "/driver/pipeline", "0" * 64), CodeIdentity("sam4em_core", "/d", "0" * 64))
    monkeypatch.setattr(dask_executor, "code_identities", lambda: other)
    with pytest.raises(ConfigError, match=r"pipeline at /driver/pipeline \(000000000000\), the worker has pipeline at"):
        carry_out(client, NoopStages(3, str(tmp_path)), tmp_path)


def test_workers_start_with_a_safe_path(client):
    found = client.run(lambda: (os.environ.get("PYTHONSAFEPATH"), os.environ.get("OMP_NUM_THREADS")))
    assert set(found.values()) == {("1", "1")}
