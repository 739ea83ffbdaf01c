"""A scheduler that is killed, a node that freezes: what a run loses, and how it ends."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from noop_stages import NoopStages

from pipeline.config.clusters import SchedulerCluster
from pipeline.errors import SchedulerUnavailable
from pipeline.ledger import Journal, Lease
from pipeline.run import workforce
from pipeline.run.cluster.local import LocalWorkers, local_cluster
from pipeline.run.cluster.scheduler import remote_cluster
from pipeline.run.cluster.settings import DASK_SETTINGS
from pipeline.run.dask_executor import DaskExecutor
from pipeline.run.loop import TaskLoop
from pipeline.run.serial import SerialExecutor
from pipeline.storage.objects import ObjectStore

NUM_BLOCKS = 61


def carry_out(executor, stages, folder, on_change=lambda counts, tally: None):
    """Drive all stages; gives the journal and the loop."""
    store = ObjectStore(str(folder / "out.run"))
    journal = Journal(store, {spec.name: spec.num_tasks for spec in stages.specs()})
    journal.replay()
    with Lease(store) as lease:
        loop = TaskLoop(
            list(stages.specs()), journal, lease, executor, retries=2, max_failed_tasks=9, on_change=on_change
        )
        assert loop.run(lambda: False)
    return journal, loop


def after(num_tasks, action):
    """Make a function that carries out an action once, when so many tasks are done."""
    waiting = [action]

    def look(counts, tally):
        if tally.num_finished >= num_tasks and waiting:
            waiting.pop()()

    return look


@contextmanager
def scheduler_and_worker(folder):
    """Start both as a user would; gives the scheduler's process and its file."""
    file = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    common = ["--scheduler-file", str(file), "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common]
    worker = ["distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "2", "--resources", "device=2"]
    worker += ["--no-nanny", "--death-timeout", "10", "--local-directory", str(folder), *common]
    # Workers import the doubles of the tests.
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent / "doubles"), os.environ["PYTHONPATH"]])
    with ExitStack() as stack:
        found = []
        for command in (scheduler, worker):
            log = stack.enter_context((folder / f"{command[0]}.log").open("w"))
            process = subprocess.Popen([sys.executable, "-m", *command], stderr=log, env=environment)
            stack.callback(process.wait)
            stack.callback(process.kill)
            found.append(process)
        yield found[0], file


def test_a_killed_scheduler_costs_only_what_was_in_flight(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setattr(workforce, "LOST_SCHEDULER_S", 2.0)
    stages = NoopStages(NUM_BLOCKS, str(tmp_path), seconds=0.02)
    with scheduler_and_worker(tmp_path) as (scheduler, file):
        wait_for(file)
        section = SchedulerCluster(kind="scheduler", file=str(file))
        with (
            remote_cluster(section) as opened,
            DaskExecutor(opened.client, stages, tasks_per_worker=4, offers=opened.offers) as executor,
            pytest.raises(SchedulerUnavailable, match="went away; what is done is recorded"),
        ):
            carry_out(executor, stages, tmp_path, after(20, scheduler.kill))
    with SerialExecutor(stages) as executor:
        journal, loop = carry_out(executor, stages, tmp_path)
    assert journal.is_complete
    assert 0 < loop.tally.num_finished <= 2 * NUM_BLOCKS + 1 - 20


def test_a_frozen_worker_loses_its_tasks_to_others(tmp_path):
    """As a node that hangs: its process is stopped, so it neither works nor answers."""
    stages = NoopStages(NUM_BLOCKS, str(tmp_path), seconds=0.02)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DASK_SETTINGS, "distributed.scheduler.worker-ttl", "4s")
        with local_cluster(LocalWorkers(2, 2, 2**30)) as opened:
            frozen = sorted(opened.client.run(os.getpid).values())[0]
            with DaskExecutor(opened.client, stages, tasks_per_worker=4, offers=opened.offers) as executor:
                journal, loop = carry_out(
                    executor, stages, tmp_path, after(20, lambda: os.kill(frozen, signal.SIGSTOP))
                )
    assert journal.is_complete
    assert loop.tally.num_retried >= 1


def wait_for(file):
    deadline = time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
