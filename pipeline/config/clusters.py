"""Who computes: the kinds of cluster that a run's `cluster` section can name. None of it changes a result.

local        worker processes on this machine
gpus         one worker process per GPU of this machine, and CPU workers beside them
slurm, lsf   jobs of a batch system; GPU and CPU jobs with resources of their own
kubernetes   pods, by the Dask operator
scheduler    a Dask scheduler that somebody else has started
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag, model_validator

from pipeline.config.section import PositiveFloat, PositiveInt, Section

_WALLTIME: Final = re.compile(r"(\d{1,4}):([0-5]\d):([0-5]\d)")
# A worker's life ends at a random moment within this fraction of it, so that not all leave at once.
STAGGER_FRACTION: Final = 0.1


def _read_walltime(value: Any) -> Any:
    """Turn HH:MM:SS into seconds. YAML itself reads 12:00:00 without quotes as so many seconds."""
    if isinstance(value, str):
        found = _WALLTIME.fullmatch(value)
        if found is None:
            raise ValueError('a walltime is written "HH:MM:SS"')
        hours, minutes, seconds = (int(part) for part in found.groups())
        return 3600 * hours + 60 * minutes + seconds
    return value


Walltime = Annotated[StrictInt, Field(ge=60), BeforeValidator(_read_walltime)]


class _Cluster(Section):
    """What every kind of cluster has."""

    threads_per_worker: Annotated[StrictInt, Field(ge=1, le=16)] = Field(
        2, description="tasks per worker at a time: one computes while others read and write"
    )
    window_blocks_per_worker: PositiveInt = Field(4, description="tasks handed out ahead, per worker")

    @property
    def num_model_workers(self) -> int | None:
        """Workers that run the model; None: not known here."""
        return None


class TlsSection(Section):
    """Certificates for encrypted connections; PEM files at the same path on every machine."""

    ca_file: StrictStr = Field(description="certificate authority that both sides trust")
    cert_file: StrictStr = Field(description="certificate of scheduler, workers and driver")
    key_file: StrictStr = Field(description="private key of the certificate")


class LocalCluster(_Cluster):
    """Worker processes on this machine."""

    kind: Literal["local"] = Field("local", description="worker processes on this machine")
    workers: PositiveInt = Field(2, description="worker processes")

    @property
    def num_model_workers(self) -> int:
        """See `_Cluster`."""
        return self.workers


class GpusCluster(_Cluster):
    """One worker process per GPU of this machine, and CPU workers beside them."""

    kind: Literal["gpus"] = Field(description="one worker process per GPU of this machine")
    devices: Annotated[tuple[Annotated[StrictInt, Field(ge=0)], ...], Field(min_length=1)] | None = Field(
        None, description="numbers of the GPUs to use, as torch counts them; default: all that are visible"
    )
    cpu_workers: Annotated[StrictInt, Field(ge=0)] = Field(
        0, description="processes for the stages without a model; 0: the GPU workers do them too"
    )

    @model_validator(mode="after")
    def _devices_differ(self) -> GpusCluster:
        if self.devices is not None and len(set(self.devices)) != len(self.devices):
            raise ValueError(f"give every GPU once; found {list(self.devices)}")
        return self

    @property
    def num_model_workers(self) -> int | None:
        """See `_Cluster`."""
        return None if self.devices is None else len(self.devices)


class JobGroup(Section):
    """Jobs of one kind: how many, and what each asks of the batch system."""

    jobs: PositiveInt = Field(description="jobs kept in the queue or running, all the time")
    workers_per_job: PositiveInt = Field(1, description="worker processes in a job; of a GPU job: its GPUs")
    cpus_per_worker: PositiveInt = Field(2, description="CPUs asked for, per worker process")
    memory_gib_per_worker: PositiveFloat | None = Field(
        None, description="memory asked for in GiB, per worker process; default: twice what the plan projects"
    )
    queue: StrictStr | None = Field(None, description="partition (Slurm) or queue (LSF); default: the site's")
    walltime: Walltime = Field(
        14400, description='how long a job may run, as "HH:MM:SS"; its workers leave before that'
    )
    directives: tuple[StrictStr, ...] = Field(
        (), description="more options of the job, one each, e.g. --gres=gpu:1 (Slurm)"
    )
    prologue: tuple[StrictStr, ...] = Field(
        (), description="shell lines before the worker starts, e.g. module load cuda"
    )


class _BatchCluster(_Cluster):
    """Jobs of a batch system. The driver runs where jobs can be submitted, and holds the scheduler."""

    gpu_workers: JobGroup | None = Field(None, description="jobs that run the model; default: the CPU jobs do")
    cpu_workers: JobGroup | None = Field(None, description="jobs for all other stages; default: the GPU jobs do")
    interface: StrictStr | None = Field(
        None, description="network interface of driver and workers, e.g. ib0; default: that of the default route"
    )
    scheduler_port: Annotated[StrictInt, Field(ge=0, le=65535)] = Field(
        0, description="port of the scheduler on the driver's machine; 0: any free one"
    )
    tls: TlsSection | None = Field(None, description="encrypt; default: not encrypted")
    log_directory: StrictStr = Field("sam4em-logs", description="folder for the output of the jobs")
    local_directory: StrictStr | None = Field(
        None, description="fast local folder of a worker, shell variables allowed, e.g. $TMPDIR; default: the job's"
    )
    block_minutes: PositiveFloat = Field(
        10.0, description="the longest that a block takes, in minutes (`sam4em plan` measures one)"
    )
    spare_minutes: PositiveFloat = Field(
        3.0, description="start and end of a job that are no life of its worker, in minutes"
    )
    poll_seconds: PositiveFloat = Field(
        30.0, description="how often the queue is asked for jobs that ended and must be replaced"
    )
    worker_timeout_minutes: PositiveFloat = Field(
        1440.0, description="the run is given up when its tasks had no worker for so long"
    )

    @model_validator(mode="after")
    def _groups_are_usable(self) -> _BatchCluster:
        if self.gpu_workers is None and self.cpu_workers is None:
            raise ValueError("no jobs: give gpu_workers, cpu_workers or both")
        for name in ("gpu_workers", "cpu_workers"):
            group: JobGroup | None = getattr(self, name)
            life_s = 0.0 if group is None else max(0.0, self.shortest_life_s(group))
            if group is not None and life_s < 60 * self.block_minutes:
                raise ValueError(
                    f"{name}.walltime of {group.walltime} s leaves a worker {life_s:.0f} s, less than one block of "
                    f"block_minutes: {self.block_minutes:g}; ask for a longer walltime, or make blocks smaller and say "
                    "so in block_minutes"
                )
        return self

    def lifetime_s(self, group: JobGroup) -> float:
        """How long a worker of a group lives, in seconds, before the stagger is added or taken away."""
        return (group.walltime - 60 * self.spare_minutes) / (1 + STAGGER_FRACTION)

    def shortest_life_s(self, group: JobGroup) -> float:
        """How long a worker of a group lives at least, in seconds; 0 or less: the job ends before it begins."""
        return (1 - STAGGER_FRACTION) * self.lifetime_s(group)

    @property
    def num_model_workers(self) -> int:
        """See `_Cluster`."""
        group = self.gpu_workers or self.cpu_workers
        return 0 if group is None else group.jobs * group.workers_per_job


class SlurmCluster(_BatchCluster):
    """Jobs of Slurm; needs the extra `cluster`."""

    kind: Literal["slurm"] = Field(description="jobs of Slurm, through dask-jobqueue")
    account: StrictStr | None = Field(None, description="account that is charged; default: the site's")


class LsfCluster(_BatchCluster):
    """Jobs of LSF; needs the extra `cluster`."""

    kind: Literal["lsf"] = Field(description="jobs of LSF, through dask-jobqueue")
    project: StrictStr | None = Field(None, description="project that is charged; default: the site's")
    memory_unit: Literal["kb", "mb", "gb", "tb"] | None = Field(
        None, description="LSF_UNIT_FOR_LIMITS of the site; default: as its lsf.conf says"
    )
    use_stdin: StrictBool = Field(True, description="submit with `bsub < script`; false: `bsub script`")


class KubernetesCluster(_Cluster):
    """Pods, by the Dask operator; needs the extra `k8s`."""

    kind: Literal["kubernetes"] = Field(description="pods, through the Dask operator")
    manifest: StrictStr = Field(
        description="YAML file with one DaskCluster and any number of DaskWorkerGroups, e.g. deploy/k8s/cluster.yaml"
    )
    namespace: StrictStr | None = Field(None, description="namespace; default: that of the kubeconfig or the pod")
    start_minutes: PositiveFloat = Field(
        5.0, description="the run is given up when the scheduler's pod is not there after so long"
    )
    worker_timeout_minutes: PositiveFloat = Field(
        30.0, description="the run is given up when its tasks had no worker for so long"
    )


class SchedulerCluster(_Cluster):
    """A Dask scheduler that somebody else has started, with its workers."""

    kind: Literal["scheduler"] = Field(description="a Dask scheduler that is running already")
    address: StrictStr | None = Field(None, description="its address, e.g. tcp://host:8786 or tls://host:8786")
    file: StrictStr | None = Field(None, description="or the file that `dask scheduler --scheduler-file` writes")
    tls: TlsSection | None = Field(None, description="certificates for a tls:// address")
    offers: tuple[Literal["device", "cpu"], ...] | None = Field(
        None,
        description="resources of the workers: the model asks for device, all else for cpu; "
        "default: what the workers that are there at the start offer",
    )
    worker_timeout_minutes: PositiveFloat = Field(
        5.0, description="the run is given up when its tasks had no worker for so long"
    )

    @model_validator(mode="after")
    def _one_way_to_find_it(self) -> SchedulerCluster:
        if (self.address is None) == (self.file is None):
            raise ValueError("give address or file, one of them")
        if self.address is not None and self.address.startswith("tls://") and self.tls is None:
            raise ValueError(f"address {self.address} is encrypted: give tls with ca_file, cert_file and key_file")
        return self


BatchCluster = SlurmCluster | LsfCluster
KINDS: Final = ("local", "gpus", "slurm", "lsf", "kubernetes", "scheduler")


def _kind_of(value: Any) -> Any:
    """Tell which kind of cluster a mapping describes; one that does not say is local."""
    return value.get("kind", "local") if isinstance(value, dict) else getattr(value, "kind", None)


ClusterSection = Annotated[
    Annotated[LocalCluster, Tag("local")]
    | Annotated[GpusCluster, Tag("gpus")]
    | Annotated[SlurmCluster, Tag("slurm")]
    | Annotated[LsfCluster, Tag("lsf")]
    | Annotated[KubernetesCluster, Tag("kubernetes")]
    | Annotated[SchedulerCluster, Tag("scheduler")],
    Discriminator(
        _kind_of,
        custom_error_type="cluster_kind",
        custom_error_message=f"cluster.kind must be one of {', '.join(KINDS)}",
    ),
]
