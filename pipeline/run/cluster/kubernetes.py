"""Workers as pods: the Dask operator makes them from the manifest that the config names."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import dask
import yaml
from distributed import Client

from pipeline.config.clusters import KubernetesCluster
from pipeline.errors import ConfigError, SchedulerUnavailable
from pipeline.run.cluster.settings import DASK_SETTINGS, START_S, OpenCluster
from pipeline.run.stream import CPU_LANE, DEVICE_LANE

API_VERSION: Final = "kubernetes.dask.org/v1"
_RESOURCES: Final = "--resources"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PodCluster:
    """A manifest, read and checked."""

    cluster: dict[str, Any]
    """The DaskCluster."""
    groups: dict[str, dict[str, Any]]
    """The `worker` part of every DaskWorkerGroup, by the group's name."""

    @property
    def offers(self) -> frozenset[str]:
        """Resources that the workers are started with."""
        workers = [self.cluster["spec"]["worker"], *self.groups.values()]
        texts = [text for worker in workers for text in _resource_texts(worker) if worker.get("replicas", 1)]
        names = frozenset(item.partition("=")[0] for text in texts for item in text.split(","))
        return names & {DEVICE_LANE, CPU_LANE}


@contextmanager
def kubernetes_cluster(section: KubernetesCluster) -> Iterator[OpenCluster]:
    """Create the DaskCluster and its worker groups; they are deleted when the context ends.

    Raises:
        ConfigError: dask-kubernetes is not installed, or the manifest is not usable.
        SchedulerUnavailable: the scheduler's pod did not come up, or Kubernetes cannot be reached.
    """
    pods = read_manifest(section.manifest)
    kube_cluster = load_kube_cluster()
    with dask.config.set(DASK_SETTINGS):
        try:
            cluster = kube_cluster(
                custom_cluster_spec=pods.cluster,
                namespace=section.namespace,
                resource_timeout=int(60 * section.start_minutes),
                shutdown_on_close=True,
                quiet=True,
            )
        # The client raises what httpx, kr8s and asyncio raise; all of it means that there is no scheduler.
        except Exception as error:
            raise SchedulerUnavailable(
                f"creating DaskCluster {pods.cluster['metadata']['name']} from {section.manifest}: "
                f"{type(error).__name__}: {error}; check `kubectl auth can-i create daskclusters`, that the operator "
                "is installed, and `kubectl get pods`"
            ) from error
        with cluster, Client(cluster, timeout=START_S, set_as_default=False) as client:
            for name, worker in pods.groups.items():
                _add_group(cluster, name, worker)
            yield OpenCluster(client, pods.offers, 60 * section.worker_timeout_minutes)


def _add_group(cluster: Any, name: str, worker: dict[str, Any]) -> None:
    """Create a worker group; one that a driver before this one has left is taken over.

    Raises:
        SchedulerUnavailable: Kubernetes refuses it.
    """
    try:
        cluster.add_worker_group(name, n_workers=worker.get("replicas", 1), custom_spec=worker)
    # The client raises what httpx and kr8s raise.
    except Exception as error:
        answer = getattr(error, "response", None)
        if getattr(answer, "status_code", None) != HTTPStatus.CONFLICT:
            raise SchedulerUnavailable(
                f"creating the DaskWorkerGroup {name}: {type(error).__name__}: {error}; check `kubectl auth can-i "
                "create daskworkergroups`"
            ) from error
        log.info("the worker group %s is there already", name)


def read_manifest(path: str) -> PodCluster:
    """Read a manifest: one DaskCluster, any number of DaskWorkerGroups that belong to it.

    Raises:
        ConfigError: the file is not there, is no YAML, or holds something else.
    """
    try:
        documents = [found for found in yaml.safe_load_all(Path(path).read_text(encoding="utf-8")) if found]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"reading the manifest {path}: {error}") from error
    clusters = [found for found in documents if _kind(found) == "DaskCluster"]
    groups = [found for found in documents if _kind(found) == "DaskWorkerGroup"]
    if len(clusters) != 1 or len(clusters) + len(groups) != len(documents):
        raise ConfigError(
            f"reading the manifest {path}: expected one DaskCluster and DaskWorkerGroups of {API_VERSION}, found "
            f"{[_kind(found) for found in documents]}; apply anything else with kubectl"
        )
    try:
        name = clusters[0]["metadata"]["name"]
        strangers = [group["metadata"]["name"] for group in groups if group["spec"]["cluster"] != name]
        workers = {group["metadata"]["name"].removeprefix(f"{name}-"): group["spec"]["worker"] for group in groups}
        pods = PodCluster(clusters[0], workers)
        offers = pods.offers
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"reading the manifest {path}: {type(error).__name__}: {error} is missing") from error
    if strangers:
        raise ConfigError(
            f"reading the manifest {path}: worker groups {strangers} belong to another cluster than {name}"
        )
    if DEVICE_LANE not in offers:
        raise ConfigError(
            f"reading the manifest {path}: no worker is started with {_RESOURCES} {DEVICE_LANE}=2, so none would run "
            "the model; see deploy/k8s/cluster.yaml"
        )
    return pods


def _kind(document: Any) -> str:
    if isinstance(document, dict) and document.get("apiVersion") == API_VERSION:
        return str(document.get("kind"))
    return f"{document.get('apiVersion')} {document.get('kind')}" if isinstance(document, dict) else str(document)


def _resource_texts(worker: dict[str, Any]) -> list[str]:
    """Give what follows `--resources` in the commands of a worker's containers."""
    texts = []
    for container in worker["spec"]["containers"]:
        words = [*container.get("command", []), *container.get("args", [])]
        texts += [words[place + 1] for place, word in enumerate(words[:-1]) if word == _RESOURCES]
    return texts


def load_kube_cluster() -> Any:
    """Import the operator's client; the import writes its defaults into Dask's configuration folder.

    Raises:
        ConfigError: dask-kubernetes is not installed.
    """
    try:
        return importlib.import_module("dask_kubernetes.operator").KubeCluster
    except ImportError as error:
        raise ConfigError(
            f"starting workers as pods: dask-kubernetes is not installed ({error}); "
            'pip install "sam4em[k8s]" where the driver runs'
        ) from error
