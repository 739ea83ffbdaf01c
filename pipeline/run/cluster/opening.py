"""From the config's `cluster` section to workers."""

from __future__ import annotations

from contextlib import AbstractContextManager

from pipeline.config.clusters import ClusterSection, GpusCluster, KubernetesCluster, LocalCluster, SchedulerCluster
from pipeline.run.cluster.batch import batch_cluster, require_commands, worker_specs
from pipeline.run.cluster.jobs import SYSTEMS
from pipeline.run.cluster.kubernetes import kubernetes_cluster, load_kube_cluster, read_manifest
from pipeline.run.cluster.local import LocalWorkers, choose_devices, gpu_cluster, local_cluster
from pipeline.run.cluster.scheduler import remote_cluster
from pipeline.run.cluster.settings import MEMORY_MARGIN, OpenCluster, WorkerNeeds, make_security
from pipeline.segmenter import count_gpus


def check_cluster(section: ClusterSection, needs: WorkerNeeds) -> None:
    """Refuse a cluster that cannot be opened from here, before anything is written.

    Args:
        section: the config's cluster section.
        needs: what a worker of this run must have.

    Raises:
        ConfigError: a package, a command, a GPU, a certificate or a manifest is lacking.
    """
    if isinstance(section, GpusCluster):
        choose_devices(section.devices, count_gpus())
    elif isinstance(section, SchedulerCluster):
        make_security(section.tls)
    elif isinstance(section, KubernetesCluster):
        read_manifest(section.manifest)
        load_kube_cluster()
    elif not isinstance(section, LocalCluster):
        require_commands(SYSTEMS[section.kind])
        worker_specs(section, needs)


def open_cluster(section: ClusterSection, needs: WorkerNeeds) -> AbstractContextManager[OpenCluster]:
    """Start or reach the workers that a config asks for.

    Args:
        section: the config's cluster section.
        needs: what a worker of this run must have.

    Raises:
        ConfigError: something that this kind of cluster needs is not here.
        SchedulerUnavailable: no scheduler answers.
        WorkersUnavailable: no worker can be had.
    """
    if isinstance(section, LocalCluster):
        memory = MEMORY_MARGIN * needs.memory_bytes
        return local_cluster(LocalWorkers(section.workers, section.threads_per_worker, memory, needs.model_threads))
    if isinstance(section, GpusCluster):
        return gpu_cluster(section, needs)
    if isinstance(section, SchedulerCluster):
        return remote_cluster(section)
    if isinstance(section, KubernetesCluster):
        return kubernetes_cluster(section)
    return batch_cluster(section, needs)
