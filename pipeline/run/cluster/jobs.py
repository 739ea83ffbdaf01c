"""What a job of a batch system asks for, and what its workers are told. Pure: nothing is submitted here.

A job's walltime           |--start--|------------- life of its worker -------------|~stagger~|--end--|
cluster.spare_minutes       start and end together
cluster.block_minutes       the life is never shorter, else no block would ever be finished
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from distributed import Security

from pipeline.config.clusters import STAGGER_FRACTION, BatchCluster, JobGroup, LsfCluster, SlurmCluster
from pipeline.errors import ConfigError
from pipeline.run.cluster.gpu_preload import REQUIRE_GPU, WORKERS_PER_JOB
from pipeline.run.cluster.settings import (
    MEMORY_MARGIN,
    WorkerNeeds,
    resources_of,
    settings_as_environment,
    worker_environment,
)

GIB: Final = 2**30
# A worker whose scheduler is gone ends itself after so long: a driver that was killed leaves no job behind.
DEATH_TIMEOUT_S: Final = 60
PRELOAD: Final = "pipeline.run.cluster.gpu_preload"


@dataclass(frozen=True)
class BatchSystem:
    """The words of one batch system."""

    module: str
    """Module of dask-jobqueue."""
    job_class: str
    """Its class of jobs."""
    submit: str
    """Command that submits."""
    list_jobs: tuple[str, ...]
    """Command that prints the ids of this user's jobs that wait or run, one per line."""


SYSTEMS: Final[Mapping[str, BatchSystem]] = {
    "slurm": BatchSystem(
        "dask_jobqueue.slurm",
        "SLURMJob",
        "sbatch",
        ("squeue", "--me", "--noheader", "--states=PD,CF,R,S,RQ,RS,SI,SO,ST", "--format=%A"),
    ),
    "lsf": BatchSystem("dask_jobqueue.lsf", "LSFJob", "bsub", ("bjobs", "-noheader", "-o", "jobid")),
}


def job_groups(section: BatchCluster) -> dict[str, JobGroup]:
    """Give the groups of jobs that a config asks for, by name."""
    groups = {"gpu": section.gpu_workers, "cpu": section.cpu_workers}
    return {name: group for name, group in groups.items() if group is not None}


def job_options(
    section: BatchCluster, name: str, needs: WorkerNeeds, security: Security | None = None
) -> dict[str, Any]:
    """Give the arguments of dask-jobqueue's job class for one group.

    Args:
        section: the config's cluster section.
        name: `gpu` or `cpu`.
        needs: what a worker of this run must have.
        security: certificates, where connections are encrypted.

    Raises:
        ConfigError: the group has less memory than a worker is projected to need.
    """
    groups = job_groups(section)
    group = groups[name]
    memory = group.workers_per_job * memory_of_worker(group, name, needs)
    threads = section.threads_per_worker
    offered = ",".join(f"{key}={value}" for key, value in resources_of(name, groups, threads).items())
    lifetime_s = section.lifetime_s(group)
    arguments = ["--resources", offered, "--no-dashboard"]
    arguments += ["--lifetime", f"{math.floor(lifetime_s)}s"]
    arguments += ["--lifetime-stagger", f"{math.floor(STAGGER_FRACTION * lifetime_s)}s"]
    if name == "gpu":
        arguments += ["--preload", PRELOAD]
    return {
        "cores": threads * group.workers_per_job,
        "processes": group.workers_per_job,
        "memory": f"{memory}B",
        "queue": group.queue,
        "walltime": walltime_text(section, group.walltime),
        "interface": section.interface,
        "protocol": None if security is None else "tls://",
        "security": security,
        "death_timeout": DEATH_TIMEOUT_S,
        "local_directory": section.local_directory,
        "log_directory": section.log_directory,
        "worker_extra_args": arguments,
        "job_extra_directives": list(group.directives),
        "job_script_prologue": [*exports(group, name, needs), *group.prologue],
        "job_name": f"sam4em-{name}",
        **_own_options(section, group),
    }


def memory_of_worker(group: JobGroup, name: str, needs: WorkerNeeds) -> int:
    """Give the memory of a worker process in bytes.

    Raises:
        ConfigError: it is less than projected.
    """
    if group.memory_gib_per_worker is None:
        return MEMORY_MARGIN * needs.memory_bytes
    memory = int(group.memory_gib_per_worker * GIB)
    if memory < needs.memory_bytes:
        raise ConfigError(
            f"asking for jobs: cluster.{name}_workers.memory_gib_per_worker is {group.memory_gib_per_worker:g}, the "
            f"plan projects {needs.memory_bytes / GIB:.2f} GiB per worker; raise it, or make blocks smaller with "
            f"plan.task_memory_gib"
        )
    return memory


def exports(group: JobGroup, name: str, needs: WorkerNeeds) -> list[str]:
    """Write the shell lines that set the environment of a job's workers."""
    variables = {**worker_environment(needs.model_threads), **settings_as_environment()}
    if name == "gpu":
        variables[WORKERS_PER_JOB] = str(group.workers_per_job)
        variables[REQUIRE_GPU] = "1" if needs.model_wants_gpu else "0"
    return [f"export {key}={shlex.quote(value)}" for key, value in variables.items()]


def walltime_text(section: BatchCluster, seconds: int) -> str:
    """Write a walltime as the batch system reads it; LSF knows no seconds."""
    if isinstance(section, LsfCluster):
        minutes = seconds // 60
        return f"{minutes // 60:02d}:{minutes % 60:02d}"
    return f"{seconds // 3600:02d}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


def _own_options(section: BatchCluster, group: JobGroup) -> dict[str, Any]:
    """Give the arguments that only one batch system has."""
    cpus = group.cpus_per_worker * group.workers_per_job
    if isinstance(section, SlurmCluster):
        return {"account": section.account, "job_cpu": cpus}
    return {
        "project": section.project,
        "ncpus": cpus,
        "lsf_units": section.memory_unit,
        "use_stdin": section.use_stdin,
    }
