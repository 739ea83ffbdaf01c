"""Clusters as they are opened: groups of workers, encrypted connections, nobody there."""

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from distributed import LocalCluster
from noop_stages import NoopStages

from pipeline.config.clusters import GpusCluster, KubernetesCluster, SchedulerCluster
from pipeline.errors import SchedulerUnavailable, WorkersUnavailable
from pipeline.run.cluster.kubernetes import kubernetes_cluster
from pipeline.run.cluster.local import LocalWorkers, gpu_cluster, local_cluster
from pipeline.run.cluster.scheduler import remote_cluster
from pipeline.run.cluster.settings import WorkerNeeds, make_security
from pipeline.run.dask_executor import DaskExecutor
from pipeline.run.stream import Task

MANIFEST = Path(__file__).parents[3] / "deploy" / "k8s" / "cluster.yaml"
PORT_FREE = "127.0.0.1:0"


def carry_out(opened, tasks, **options):
    """Carry out tasks; gives the completions."""
    options = {"offers": opened.offers, "worker_timeout_s": opened.worker_timeout_s, **options}
    with DaskExecutor(opened.client, NoopStages(8), tasks_per_worker=4, **options) as executor:
        executor.submit(tasks)
        found = []
        while len(found) < len(tasks):
            found += executor.wait(1.0)
        return found


def both_lanes():
    return [Task(stage, index) for stage in ("predict", "label") for index in range(8)]


@pytest.fixture(scope="module")
def gpus():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.run.cluster.local.count_gpus", lambda: 2)
        # What the shell says does not count.
        patch.setenv("OMP_NUM_THREADS", "7")
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        section = GpusCluster(kind="gpus", cpu_workers=1)
        with gpu_cluster(section, WorkerNeeds(2**29, model_threads=3)) as opened:
            yield opened


def test_one_process_per_gpu_and_cpu_workers_beside_them(gpus):
    import os

    names = ("CUDA_VISIBLE_DEVICES", "PYTHONSAFEPATH", "OMP_NUM_THREADS")
    found = gpus.client.run(lambda: tuple(os.environ.get(name) for name in names))
    assert sorted(found.values()) == [("", "1", "3"), ("0", "1", "3"), ("1", "1", "3")]


def test_the_model_runs_on_gpu_workers_and_all_else_on_cpu_workers(gpus):
    workers = gpus.client.scheduler_info(n_workers=-1)["workers"]
    group = {address: str(info["name"]).partition("-")[0] for address, info in workers.items()}
    found = {(done.task.stage, group[done.worker]) for done in carry_out(gpus, both_lanes())}
    assert found == {("predict", "gpu"), ("label", "cpu")}


def test_the_windows_follow_the_workers_of_each_lane(gpus):
    with DaskExecutor(gpus.client, NoopStages(8), tasks_per_worker=4, offers=gpus.offers) as executor:
        # Two GPU workers that take two tasks each and hold one more; one CPU worker.
        assert executor.windows == {"device": 6, "cpu": 4}


def wait_for_nobody(gpus, **options):
    """Wait for a task of a lane that no worker serves."""
    stages = NoopStages(3)
    specs = [type(spec)(spec.name, spec.num_tasks, lane="tpu") for spec in stages.specs()[:1]]
    object.__setattr__(stages, "specs", lambda: specs)
    offers = frozenset({"device", "tpu"})
    with DaskExecutor(gpus.client, stages, tasks_per_worker=4, offers=offers, **options) as executor:
        executor.submit([Task("predict", 0)])
        try:
            for _ in range(60):
                executor.wait(0.1)
        finally:
            executor.cancel()


def test_a_lane_without_a_worker_ends_the_run_after_its_time(gpus):
    with pytest.raises(WorkersUnavailable, match=r"for 0 s there was no worker that offers tpu"):
        wait_for_nobody(gpus, worker_timeout_s=0.5)


def test_what_the_cluster_knows_of_its_health_ends_the_run(gpus):
    def check():
        raise WorkersUnavailable("jobs die")

    with pytest.raises(WorkersUnavailable, match="jobs die"):
        wait_for_nobody(gpus, check_health=check)


@contextmanager
def scheduler(*arguments):
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--no-dashboard"]
    command += ["--dashboard-address", PORT_FREE, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if "Scheduler at:" in line:
                yield line.split()[-1]
                break
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def test_a_scheduler_without_workers_is_not_waited_for_for_ever():
    with scheduler("--host", "127.0.0.1") as address:
        section = SchedulerCluster(kind="scheduler", address=address, worker_timeout_minutes=0.02)
        with (
            pytest.raises(WorkersUnavailable, match=r"has none, and none came within .*worker_timeout_minutes: 0\.02"),
            remote_cluster(section),
        ):
            pass


def test_an_encrypted_scheduler(tmp_path):
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sam4em"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    tls = {"ca_file": cert, "cert_file": cert, "key_file": key}
    arguments = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key, "--protocol", "tls"]
    with scheduler("--host", "127.0.0.1", *arguments) as address:
        assert address.startswith("tls://")
        section = SchedulerCluster(kind="scheduler", address=address, tls=tls, offers=("device",))
        with remote_cluster(section) as opened:
            assert opened.client.status == "running"
            assert opened.offers == {"device"}
        stranger = SchedulerCluster(kind="scheduler", address=address.replace("tls://", "tcp://"))
        with pytest.raises(SchedulerUnavailable, match=r"cluster\.tls where it is encrypted"), remote_cluster(stranger):
            pass
    assert make_security(section.tls).require_encryption


class FakeKubeCluster(LocalCluster):
    """Worker processes of this machine in the place of pods; notes what the operator would have been told."""

    def __init__(self, custom_cluster_spec, namespace, resource_timeout, shutdown_on_close, quiet):
        self.told = [custom_cluster_spec["metadata"]["name"], namespace, resource_timeout, shutdown_on_close]
        assert quiet
        resources = {"device": 2}
        super().__init__(1, threads_per_worker=2, dashboard_address=PORT_FREE, resources=resources, host="127.0.0.1")

    def add_worker_group(self, name, n_workers, custom_spec):
        self.told += [name, n_workers, custom_spec["spec"]["containers"][0]["image"]]


@pytest.fixture
def operator(monkeypatch):
    """Stand in for dask-kubernetes, which talks to a Kubernetes."""
    made = []
    module = ModuleType("dask_kubernetes.operator")
    module.KubeCluster = lambda **options: made.append(FakeKubeCluster(**options)) or made[-1]
    package = ModuleType("dask_kubernetes")
    package.operator = module
    monkeypatch.setitem(sys.modules, "dask_kubernetes", package)
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", module)
    return module, made


def test_pods_are_made_from_the_manifest_and_deleted(operator):
    _, made = operator
    section = KubernetesCluster(kind="kubernetes", manifest=str(MANIFEST), namespace="em", start_minutes=2)
    with kubernetes_cluster(section) as opened:
        assert opened.offers == {"device", "cpu"}
        found = carry_out(opened, [Task("predict", index) for index in range(4)])
        assert {done.error for done in found} == {None}
    assert made[0].told == ["sam4em", "em", 120, True, "cpu", 8, "sam4em:cpu"]
    assert made[0].status.name == "closed"


@pytest.mark.parametrize(("status", "is_taken_over"), [(409, True), (403, False)])
def test_a_group_that_is_there_already_is_taken_over(operator, monkeypatch, status, is_taken_over):
    def refuse(self, *arguments, **options):
        error = OSError("the server's own words")
        error.response = SimpleNamespace(status_code=status)
        raise error

    monkeypatch.setattr(FakeKubeCluster, "add_worker_group", refuse)
    section = KubernetesCluster(kind="kubernetes", manifest=str(MANIFEST))
    with ExitStack() as stack:
        if not is_taken_over:
            stack.enter_context(pytest.raises(SchedulerUnavailable, match=r"DaskWorkerGroup cpu: .*the server's own"))
        stack.enter_context(kubernetes_cluster(section))


def test_a_kubernetes_that_refuses(operator):
    module, _ = operator

    def refuse(**options):
        raise ConnectionError("403 Forbidden")

    module.KubeCluster = refuse
    section = KubernetesCluster(kind="kubernetes", manifest=str(MANIFEST))
    with (
        pytest.raises(SchedulerUnavailable, match=r"creating DaskCluster sam4em .*403 Forbidden.*kubectl auth can-i"),
        kubernetes_cluster(section),
    ):
        pass


def test_a_worker_that_ends_before_it_is_ready_is_an_error_with_the_mend(monkeypatch):
    # What the nanny spawns leaves at once, as if the system had killed it.
    monkeypatch.setattr("multiprocessing.spawn.get_command_line", lambda **_: ["/bin/false"])
    with (
        pytest.raises(WorkersUnavailable, match=r"one was not ready .*The same command goes on"),
        local_cluster(LocalWorkers(1, 1, 2**30)),
    ):
        pass
