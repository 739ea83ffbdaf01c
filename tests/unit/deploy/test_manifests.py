"""What is applied to a Kubernetes, checked without one: pods by its own schema, Dask's objects by the operator's."""

import importlib.util
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

K8S = Path(__file__).parents[3] / "deploy" / "k8s"
DEFINITIONS = "operator/deployment/helm/dask-kubernetes-operator/crds"
PREEMPTIBLE = {
    "cloud.google.com/gke-spot",
    "cloud.google.com/gke-preemptible",
    "eks.amazonaws.com/capacityType",
    "kubernetes.azure.com/scalesetpriority",
}


def load(name):
    return list(yaml.safe_load_all((K8S / name).read_text()))


def pods():
    cluster, group = load("cluster.yaml")
    found = {
        "scheduler": cluster["spec"]["scheduler"]["spec"],
        "gpu": cluster["spec"]["worker"]["spec"],
        "cpu": group["spec"]["worker"]["spec"],
    }
    jobs = [document for document in load("driver.yaml") if document["kind"] == "Job"]
    return found | {"driver": jobs[0]["spec"]["template"]["spec"]}


def environment(pod):
    return {item["name"]: item["value"] for item in pod["containers"][0]["env"]}


def validate_pod(spec):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", ["scheduler", "gpu", "cpu", "driver"])
def test_every_pod_is_one(name):
    validate_pod(pods()[name])


def test_a_misspelt_key_would_be_found():
    pod = pods()["gpu"]
    pod["containers"][0]["imagePulPolicy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        validate_pod(pod)


@pytest.mark.parametrize("document", load("driver.yaml"), ids=lambda document: document["kind"])
def test_what_the_driver_needs_is_known_to_kubernetes(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(("place", "file"), [(0, "daskcluster.yaml"), (1, "daskworkergroup.yaml")])
def test_dasks_objects_are_what_the_operator_expects(place, file):
    found = importlib.util.find_spec("dask_kubernetes")
    if found is None:
        pytest.skip("dask-kubernetes is not installed (pip install --no-deps dask-kubernetes)")
    # Read, not imported: an import writes into the user's Dask configuration.
    definition = yaml.safe_load((Path(found.submodule_search_locations[0]) / DEFINITIONS / file).read_text())
    document = load("cluster.yaml")[place]
    assert document["kind"] == definition["spec"]["names"]["kind"]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    jsonschema.Draft202012Validator(schema).validate(document)
    del document["spec"]["worker"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(document)


@pytest.mark.parametrize("name", ["scheduler", "driver"])
def test_what_must_not_be_lost_stays_off_preemptible_nodes(name):
    rules = pods()[name]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    expressions = rules["nodeSelectorTerms"][0]["matchExpressions"]
    assert {expression["key"] for expression in expressions} == PREEMPTIBLE
    assert {expression["operator"] for expression in expressions} == {"DoesNotExist", "NotIn"}


def test_workers_have_the_environment_that_other_workers_have():
    from pipeline.run.cluster.settings import settings_as_environment, worker_environment

    wanted = worker_environment(1) | {
        name: value for name, value in settings_as_environment().items() if "WORKER__MEMORY" in name
    }
    for name in ("gpu", "cpu"):
        assert wanted.items() <= environment(pods()[name]).items()
    scheduler = environment(pods()["scheduler"])
    assert scheduler["PYTHONSAFEPATH"] == "1"
    name = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"
    assert scheduler[name] == settings_as_environment()[name]


def test_the_gpu_pods_ask_for_one_gpu_each():
    resources = pods()["gpu"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert environment(pods()["gpu"])["SAM4EM_REQUIRE_GPU"] == "1"
    assert "nvidia.com/gpu" not in pods()["cpu"]["containers"][0]["resources"]["limits"]
