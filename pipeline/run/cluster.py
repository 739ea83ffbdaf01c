"""Who computes: worker processes on this machine, or a scheduler that is running already.

Every kind of cluster is a context manager that gives a connected Dask client; nothing else in the run room
knows which kind it is.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dask
from distributed import Client, LocalCluster

from pipeline.errors import SchedulerUnavailable
from pipeline.run.loop import DEVICE_LANE

CONNECT_S: Final = 5.0
START_S: Final = 60.0
# Dask serves its state over HTTP even without a dashboard; on its default port, two runs on one machine collide.
ANY_PORT: Final = "127.0.0.1:0"
# One task computes, one reads or writes.
DEVICE_TASKS_PER_WORKER: Final = 2

DASK_SETTINGS: Final[dict[str, Any]] = {
    # The loop decides about tasks whose worker died; Dask would hide the first three deaths.
    "distributed.scheduler.allowed-failures": 0,
    # Nothing large is ever held by a worker, so there is nothing to spill.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    # A paused worker takes no task and, since freed memory stays with it, may never go on: the run would hang. Beyond
    # the limit it is killed, and the death is counted against its task.
    "distributed.worker.memory.pause": False,
    "distributed.comm.timeouts.connect": f"{CONNECT_S:.0f}s",
    "distributed.admin.tick.limit": "30s",
}


@dataclass(frozen=True)
class LocalWorkers:
    """Worker processes on this machine."""

    num_workers: int
    """Processes."""
    threads_per_worker: int
    """Tasks per process at a time."""
    memory_limit_bytes: int
    """A worker that needs more is killed by its nanny, and its task counts a death."""
    model_threads: int = 1
    """CPU threads of one model call."""
    dashboard_address: str | None = None
    """Where to serve Dask's dashboard, e.g. `127.0.0.1:8787`; None: nowhere."""


def worker_environment(model_threads: int) -> dict[str, str]:
    """Give the environment of a worker process."""
    threads = str(model_threads)
    return {
        "PYTHONSAFEPATH": "1",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        # Dask's default gives freed memory back at once; a model then spends half its time on page faults (measured:
        # 32.7 s against 15.1 s for the same block).
        "MALLOC_TRIM_THRESHOLD_": str(2 * 2**30),
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    }


def open_client(scheduler_address: str | None, local: LocalWorkers) -> AbstractContextManager[Client]:
    """Connect to the scheduler at an address, or start workers on this machine where there is none."""
    return local_client(local) if scheduler_address is None else remote_client(scheduler_address)


@contextmanager
def local_client(workers: LocalWorkers) -> Iterator[Client]:
    """Start worker processes and give a client; they end with the context."""
    settings = {
        **DASK_SETTINGS,
        "distributed.nanny.pre-spawn-environ": worker_environment(workers.model_threads),
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers.num_workers,
            threads_per_worker=workers.threads_per_worker,
            processes=True,
            host="127.0.0.1",
            dashboard_address=workers.dashboard_address or ANY_PORT,
            scheduler_kwargs={"dashboard": workers.dashboard_address is not None},
            memory_limit=workers.memory_limit_bytes,
            resources={DEVICE_LANE: DEVICE_TASKS_PER_WORKER},
            silence_logs=logging.WARNING,
        ) as cluster,
        Client(cluster, timeout=START_S, set_as_default=False) as client,
    ):
        client.wait_for_workers(workers.num_workers, timeout=START_S)
        yield client


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """Connect to a scheduler that is running; it stays when the context ends.

    Raises:
        SchedulerUnavailable: nobody answers within a few seconds.
    """
    with dask.config.set(DASK_SETTINGS):
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise SchedulerUnavailable(
                f"connecting to the scheduler at {address}: nobody answered within {CONNECT_S:.0f} s; start one "
                f"with `dask scheduler`, or leave cluster.scheduler_address out"
            ) from error
        with client:
            yield client
