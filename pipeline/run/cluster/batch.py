"""Workers as jobs of Slurm or LSF: dask-jobqueue writes and submits them, Dask's SpecCluster holds them.

The scheduler runs in the driver's process. The number of jobs is fixed: one that ends, at its walltime or because
it was cancelled, is submitted again (`JobKeeper`).
"""

from __future__ import annotations

import importlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
from distributed import Client, Scheduler, SpecCluster, Status

from pipeline.config.clusters import BatchCluster
from pipeline.errors import ConfigError, WorkersUnavailable
from pipeline.run.cluster.job_keeper import JobKeeper
from pipeline.run.cluster.jobs import SYSTEMS, BatchSystem, job_groups, job_options
from pipeline.run.cluster.settings import (
    DASK_SETTINGS,
    START_S,
    OpenCluster,
    WorkerNeeds,
    make_security,
    resources_of,
)


@contextmanager
def batch_cluster(section: BatchCluster, needs: WorkerNeeds) -> Iterator[OpenCluster]:
    """Submit the jobs; they are cancelled when the context ends.

    Raises:
        ConfigError: dask-jobqueue is not installed, the batch system's commands are not on the PATH, a certificate is
            not there, or a group asks for too little memory.
        WorkersUnavailable: the batch system refuses the jobs.
    """
    system = SYSTEMS[section.kind]
    security = make_security(section.tls)
    require_commands(system)
    workers = worker_specs(section, needs)
    scheduler = {
        "cls": Scheduler,
        "options": {
            "interface": section.interface,
            "port": section.scheduler_port,
            "protocol": "tcp://" if security is None else "tls://",
            "security": security,
            "dashboard": False,
            "dashboard_address": ":0",
        },
    }
    with (
        dask.config.set(DASK_SETTINGS),
        _submitted(section, workers, scheduler, security=security) as cluster,
        Client(cluster, timeout=START_S, set_as_default=False) as client,
        JobKeeper(
            cluster, system.list_jobs, poll_s=section.poll_seconds, logs=str(Path(section.log_directory).absolute())
        ) as keeper,
    ):
        groups = job_groups(section)
        offers = [resources_of(name, groups, section.threads_per_worker) for name in groups]
        yield OpenCluster(
            client,
            frozenset(name for offered in offers for name in offered),
            60 * section.worker_timeout_minutes,
            keeper.check_health,
        )


def worker_specs(section: BatchCluster, needs: WorkerNeeds) -> dict[str, dict[str, Any]]:
    """Describe every job, by name, as SpecCluster wants it.

    Raises:
        ConfigError: dask-jobqueue is not installed, or a group asks for too little memory.
    """
    job_class = load_job_class(SYSTEMS[section.kind])
    security = make_security(section.tls)
    specs: dict[str, dict[str, Any]] = {}
    for name, group in job_groups(section).items():
        options = job_options(section, name, needs, security)
        for number in range(group.jobs):
            spec: dict[str, Any] = {"cls": job_class, "options": options}
            if group.workers_per_job > 1:
                # The names of the workers of one job.
                spec["group"] = [f"-{worker}" for worker in range(group.workers_per_job)]
            specs[f"{name}-{number}"] = spec
    return specs


class FailsAloud:
    """Mixed into a class of jobs: one that is refused says so, where dask-jobqueue leaves it as if it were to come."""

    status: Status

    async def start(self) -> None:
        """Submit the job."""
        try:
            await super().start()  # type: ignore[misc]
        except (RuntimeError, ValueError, OSError):
            self.status = Status.failed
            raise


def load_job_class(system: BatchSystem) -> Any:
    """Import a class of jobs.

    Raises:
        ConfigError: dask-jobqueue is not installed.
    """
    try:
        job_class = getattr(importlib.import_module(system.module), system.job_class)
    except ImportError as error:
        raise ConfigError(
            f"starting workers as jobs: dask-jobqueue is not installed ({error}); "
            'pip install "sam4em[cluster]", on the machine of the driver'
        ) from error
    return type(system.job_class, (FailsAloud, job_class), {})


def require_commands(system: BatchSystem) -> None:
    """Refuse where jobs cannot be submitted from.

    Raises:
        ConfigError: a command of the batch system is not on the PATH.
    """
    for command in (system.submit, system.list_jobs[0]):
        if shutil.which(command) is None:
            raise ConfigError(
                f"starting workers as jobs: there is no `{command}` on the PATH of this machine; run sam4em where jobs "
                "can be submitted (a login node), or choose another cluster.kind"
            )


@contextmanager
def _submitted(
    section: BatchCluster, workers: dict[str, dict[str, Any]], scheduler: dict[str, Any], *, security: Any
) -> Iterator[SpecCluster]:
    """Start the scheduler and submit every job.

    Raises:
        ConfigError: the network interface is not there, or the port is taken.
        WorkersUnavailable: the batch system refuses a job.
    """
    try:
        cluster = SpecCluster(
            workers=workers, scheduler=scheduler, security=security, silence_logs=logging.WARNING, name="sam4em"
        )
    except (RuntimeError, OSError, ValueError) as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        told = " ".join(str(root).split())
        if root is not error:
            # Dask wraps what kept the scheduler from starting; what a job raises comes as it is.
            raise ConfigError(
                f"starting the scheduler on this machine: {told}; mend cluster.interface ({section.interface}) or "
                f"cluster.scheduler_port ({section.scheduler_port})"
            ) from error
        raise WorkersUnavailable(
            f"submitting jobs with {SYSTEMS[section.kind].submit}: {told}; mend queue, account, walltime or directives "
            "of the config's cluster section"
        ) from error
    with cluster:
        yield cluster
