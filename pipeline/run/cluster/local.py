"""Worker processes on this machine: on its CPUs, or one per GPU."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dask
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster

from pipeline.config.clusters import GpusCluster
from pipeline.errors import ConfigError, WorkersUnavailable
from pipeline.run.cluster.settings import (
    ANY_PORT,
    DASK_SETTINGS,
    DEVICE_TASKS_PER_WORKER,
    MEMORY_MARGIN,
    START_S,
    OpenCluster,
    WorkerNeeds,
    resources_of,
    spawning_environment,
)
from pipeline.run.stream import DEVICE_LANE
from pipeline.segmenter import count_gpus

_LOOPBACK: Final = "127.0.0.1"


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


@contextmanager
def local_cluster(workers: LocalWorkers) -> Iterator[OpenCluster]:
    """Start worker processes; they end with the context.

    Raises:
        WorkersUnavailable: they did not come up.
    """
    with (
        spawning_environment(workers.model_threads) as environment,
        dask.config.set({**DASK_SETTINGS, "distributed.nanny.pre-spawn-environ": environment}),
        _started(
            LocalCluster,
            n_workers=workers.num_workers,
            threads_per_worker=workers.threads_per_worker,
            processes=True,
            host=_LOOPBACK,
            dashboard_address=workers.dashboard_address or ANY_PORT,
            scheduler_kwargs={"dashboard": workers.dashboard_address is not None},
            memory_limit=workers.memory_limit_bytes,
            resources={DEVICE_LANE: DEVICE_TASKS_PER_WORKER},
            silence_logs=logging.WARNING,
        ) as cluster,
        Client(cluster, timeout=START_S, set_as_default=False) as client,
    ):
        wait_for_workers(client, workers.num_workers)
        yield OpenCluster(client, frozenset({DEVICE_LANE}), START_S)


@contextmanager
def _started(kind: type[SpecCluster], **options: Any) -> Iterator[SpecCluster]:
    """Start a cluster's processes; they end with the context.

    Raises:
        WorkersUnavailable: one of them ended before it was ready.
    """
    try:
        cluster = kind(**options)
    except (RuntimeError, OSError) as error:
        raise WorkersUnavailable(
            f"starting worker processes on this machine: one was not ready ({error} {error.__cause__ or ''}); it was "
            "killed (for want of memory: see the system's log), or could not import what it needs (its own words "
            "stand above). The same command goes on"
        ) from error
    with cluster:
        yield cluster


@contextmanager
def gpu_cluster(section: GpusCluster, needs: WorkerNeeds) -> Iterator[OpenCluster]:
    """Start one worker process per GPU and those for CPU work; they end with the context.

    Raises:
        ConfigError: no GPU is visible, or one that the config names is not there.
        WorkersUnavailable: the processes did not come up.
    """
    devices = choose_devices(section.devices, count_gpus())
    workers = worker_specs(section, needs, devices)
    scheduler = {
        "cls": Scheduler,
        "options": {"host": _LOOPBACK, "dashboard": False, "dashboard_address": ANY_PORT},
    }
    with (
        spawning_environment(needs.model_threads) as environment,
        dask.config.set({**DASK_SETTINGS, "distributed.nanny.pre-spawn-environ": environment}),
        _started(SpecCluster, workers=workers, scheduler=scheduler, silence_logs=logging.WARNING) as cluster,
        Client(cluster, timeout=START_S, set_as_default=False) as client,
    ):
        wait_for_workers(client, len(workers))
        offers = frozenset(name for worker in workers.values() for name in worker["options"]["resources"])
        yield OpenCluster(client, offers, START_S)


def choose_devices(wanted: Sequence[int] | None, num_visible: int) -> list[int]:
    """Choose GPUs, as torch counts them.

    Raises:
        ConfigError: none is visible, or one that is wanted is not there.
    """
    if num_visible == 0:
        raise ConfigError(
            "starting one worker per GPU: torch sees none; check the driver with `nvidia-smi`, CUDA_VISIBLE_DEVICES, "
            "and that a CUDA build of torch is installed, or set cluster.kind: local"
        )
    chosen = list(range(num_visible)) if wanted is None else list(wanted)
    missing = [device for device in chosen if device >= num_visible]
    if missing:
        raise ConfigError(
            f"starting one worker per GPU: cluster.devices names {missing}, torch sees {num_visible}: "
            f"0 to {num_visible - 1}"
        )
    return chosen


def worker_specs(section: GpusCluster, needs: WorkerNeeds, devices: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Describe the worker processes, by name: one nanny per GPU, then the CPU workers."""
    names = [f"gpu-{device}" for device in devices] + [f"cpu-{number}" for number in range(section.cpu_workers)]
    groups = dict.fromkeys(name.partition("-")[0] for name in names)
    specs: dict[str, dict[str, Any]] = {}
    for name in names:
        group, _, number = name.partition("-")
        options: dict[str, Any] = {
            "nthreads": section.threads_per_worker,
            "memory_limit": MEMORY_MARGIN * needs.memory_bytes,
            "resources": resources_of(group, groups, section.threads_per_worker),
            "env": {"CUDA_VISIBLE_DEVICES": device_address(int(number)) if group == "gpu" else ""},
            "host": _LOOPBACK,
            "dashboard": False,
            "dashboard_address": ANY_PORT,
        }
        specs[name] = {"cls": Nanny, "options": options}
    return specs


def device_address(number: int) -> str:
    """Name a GPU to a child process: CUDA_VISIBLE_DEVICES of this process may show only some, in another order."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return visible[number] if number < len(visible) else str(number)


def wait_for_workers(client: Client, count: int) -> None:
    """Wait until so many workers of this machine are there.

    Raises:
        WorkersUnavailable: they are not, after a minute.
    """
    try:
        client.wait_for_workers(count, timeout=START_S)
    except TimeoutError as error:
        present = len(client.scheduler_info(n_workers=-1)["workers"])
        raise WorkersUnavailable(
            f"starting workers on this machine: {present} of {count} came within {START_S:.0f} s; what hindered the "
            "others stands above; ask for fewer, or free memory"
        ) from error
