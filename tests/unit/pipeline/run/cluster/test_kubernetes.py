import sys
from pathlib import Path

import pytest
import yaml

from pipeline.config.clusters import KubernetesCluster
from pipeline.errors import ConfigError
from pipeline.run.cluster.kubernetes import kubernetes_cluster, read_manifest

MANIFEST = Path(__file__).parents[5] / "deploy" / "k8s" / "cluster.yaml"


def documents():
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def write(tmp_path, *found):
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(found))
    return str(path)


def test_the_manifest_that_is_shipped():
    pods = read_manifest(str(MANIFEST))
    assert pods.cluster["metadata"]["name"] == "sam4em"
    assert list(pods.groups) == ["cpu"]
    assert pods.offers == {"device", "cpu"}


def test_a_cluster_alone_may_do_everything(tmp_path):
    assert read_manifest(write(tmp_path, documents()[0])).offers == {"device"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda cluster, group: [group], r"expected one DaskCluster .*found \['DaskWorkerGroup'\]"),
        (lambda cluster, group: [cluster, cluster], "expected one DaskCluster"),
        (lambda cluster, group: [cluster, {"apiVersion": "v1", "kind": "Pod"}], "v1 Pod.*apply anything else"),
        (lambda cluster, group: [cluster, 7], "expected one DaskCluster"),
        (lambda cluster, group: [cluster, {**group, "spec": {**group["spec"], "cluster": "b"}}], "another cluster"),
        (lambda cluster, group: [{**cluster, "metadata": {}}], "'name' is missing"),
        (
            lambda cluster, group: [{**cluster, "spec": {**cluster["spec"], "worker": group["spec"]["worker"]}}],
            "device=2",
        ),
    ],
)
def test_manifests_that_are_refused(tmp_path, change, told):
    with pytest.raises(ConfigError, match=told):
        read_manifest(write(tmp_path, *change(*documents())))


def test_a_manifest_that_is_no_yaml(tmp_path):
    (tmp_path / "cluster.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"cluster\.yaml"):
        read_manifest(str(tmp_path / "cluster.yaml"))


def test_dask_kubernetes_that_is_not_installed_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_kubernetes", None)
    section = KubernetesCluster(kind="kubernetes", manifest=str(MANIFEST))
    with (
        pytest.raises(ConfigError, match=r'dask-kubernetes is not installed.*pip install "sam4em\[k8s\]"'),
        kubernetes_cluster(section),
    ):
        pass
