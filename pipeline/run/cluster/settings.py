"""What every cluster has in common: Dask's settings, the environment of a worker, the resources it offers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from distributed import Client, Security

from pipeline.config.clusters import TlsSection
from pipeline.errors import ConfigError
from pipeline.run.stream import CPU_LANE, DEVICE_LANE

CONNECT_S: Final = 5.0
START_S: Final = 60.0
# Dask serves its state over HTTP even without a dashboard; on its default port, two runs on one machine collide.
ANY_PORT: Final = "127.0.0.1:0"
# One task computes, one reads or writes.
DEVICE_TASKS_PER_WORKER: Final = 2
# A worker that needs this times its projected memory is killed before the machine suffers.
MEMORY_MARGIN: Final = 2

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
    # The scheduler remembers the last 1000 calls of `Client.map` by default: 20 MB that nobody reads.
    "distributed.admin.low-level-log-length": 100,
    # A worker that says nothing for so long is taken for frozen, and its tasks go to others. Code that does not let
    # go of Python's lock silences a worker too; no step of a task does for minutes.
    "distributed.scheduler.worker-ttl": "5 minutes",
    # A worker that its nanny starts anew is back within this time; later, its job is taken for dead.
    "distributed.deploy.lost-worker-timeout": "60s",
}


@dataclass(frozen=True)
class WorkerNeeds:
    """What a worker of a run must have, whoever starts it."""

    memory_bytes: int
    """Projected resident memory of one worker process."""
    model_threads: int = 1
    """CPU threads of one model call."""
    model_wants_gpu: bool = False
    """The model would run on a CPU where there is no GPU, without a word; a GPU worker must have one."""


def _healthy() -> None:
    """Find nothing wrong."""


@dataclass(frozen=True)
class OpenCluster:
    """A connected client and what is known of the workers behind it."""

    client: Client
    """Connected; closed by whoever opened it."""
    offers: frozenset[str]
    """Resources that its workers offer, now or later; a lane without one runs on any worker."""
    worker_timeout_s: float
    """Without a worker for so long, the run is given up."""
    check_health: Callable[[], None] = _healthy
    """Raises WorkersUnavailable where no worker will ever come."""


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
        # Every thread would keep a heap of its own, zarr's too: 0.6 GB in place of 0.7 for a worker that labels, 1.8 in
        # place of 2.0 for one with a model, at the same time.
        "MALLOC_ARENA_MAX": "2",
    }


@contextmanager
def spawning_environment(model_threads: int) -> Iterator[dict[str, str]]:
    """Set the environment of workers in this process while its nannies spawn them, and put back what was there.

    A nanny prefers what this process has over what Dask's settings say, and leaves what it set behind: without this the
    shell, or an earlier run with other model threads, would decide.
    """
    ours = worker_environment(model_threads)
    # The nanny sets the last one by itself.
    before = {name: os.environ.get(name) for name in (*ours, "PYTHONHASHSEED")}
    os.environ.update(ours)
    try:
        yield ours
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def settings_as_environment() -> dict[str, str]:
    """Write Dask's settings as environment variables, for processes that this one does not start itself."""
    return {f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": str(v) for name, v in DASK_SETTINGS.items()}


def resources_of(group: str, groups: Mapping[str, object], threads: int) -> dict[str, int]:
    """Tell what a worker offers: the model's tasks go to GPU workers, all others to CPU workers.

    Args:
        group: `gpu` or `cpu`.
        groups: those that exist; the only one does everything, and limits the tasks of the model alone.
        threads: tasks of a worker at a time.
    """
    if group == "cpu" and len(groups) > 1:
        return {CPU_LANE: threads}
    return {DEVICE_LANE: DEVICE_TASKS_PER_WORKER}


def make_security(tls: TlsSection | None) -> Security | None:
    """Make Dask's security settings; None: not encrypted.

    Raises:
        ConfigError: a file is not there or cannot be read.
    """
    if tls is None:
        return None
    for name, path in tls.model_dump().items():
        if not Path(path).is_file() or not os.access(path, os.R_OK):
            raise ConfigError(f"encrypting connections: cluster.tls.{name}: no readable file {path}")
    pair = {"cert": tls.cert_file, "key": tls.key_file}
    roles = {f"tls_{role}_{what}": path for role in ("client", "worker", "scheduler") for what, path in pair.items()}
    return Security(require_encryption=True, tls_ca_file=tls.ca_file, **roles)
