"""The scripts that are submitted, word for word: what Slurm and LSF get to read."""

import sys
from pathlib import Path

import pytest
from distributed import Security

from pipeline.config.clusters import LsfCluster, SlurmCluster
from pipeline.errors import ConfigError
from pipeline.run.cluster.batch import worker_specs
from pipeline.run.cluster.jobs import job_options
from pipeline.run.cluster.settings import WorkerNeeds

GOLDEN = Path(__file__).parent / "golden"
NEEDS = WorkerNeeds(memory_bytes=3 * 2**30, model_threads=1, model_wants_gpu=True)
GPU = {
    "jobs": 2,
    "workers_per_job": 4,
    "cpus_per_worker": 3,
    "memory_gib_per_worker": 32,
    "queue": "a100",
    "walltime": "08:00:00",
    "prologue": ["module load cuda"],
}
CPU = {"jobs": 1, "queue": "normal", "walltime": "01:30:30"}


def slurm(**changes):
    values = {"account": "em", "interface": "ib0", "gpu_workers": GPU | {"directives": ["--gres=gpu:4"]}, **changes}
    return SlurmCluster.model_validate({"kind": "slurm", "cpu_workers": CPU, **values})


def lsf(**changes):
    values = {"project": "em", "memory_unit": "mb", "gpu_workers": GPU | {"directives": ['-gpu "num=4"']}, **changes}
    return LsfCluster.model_validate({"kind": "lsf", "cpu_workers": CPU, **values})


def script_of(section, name):
    spec = worker_specs(section, NEEDS)[name]
    job = spec["cls"]("tcp://10.1.2.3:4567", name=name, **spec["options"])
    return job.job_script().replace(sys.executable, "PYTHON")


@pytest.mark.parametrize("kind", ["slurm", "lsf"])
@pytest.mark.parametrize("name", ["gpu-1", "cpu-0"])
def test_the_script_of_a_job(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = {"slurm": slurm, "lsf": lsf}[kind]()
    assert script_of(section, name) == (GOLDEN / f"{kind}-{name}.sh").read_text()


def test_every_job_of_every_group_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    specs = worker_specs(slurm(), NEEDS)
    assert list(specs) == ["gpu-0", "gpu-1", "cpu-0"]
    assert specs["gpu-0"]["group"] == ["-0", "-1", "-2", "-3"]
    assert "group" not in specs["cpu-0"]


def test_a_group_with_less_memory_than_projected():
    section = slurm(cpu_workers=CPU | {"memory_gib_per_worker": 2})
    with pytest.raises(ConfigError, match=r"cpu_workers\.memory_gib_per_worker is 2, the plan projects 3\.00 GiB"):
        job_options(section, "cpu", NEEDS)


def test_the_memory_is_twice_what_is_projected_where_none_is_given():
    assert job_options(slurm(), "cpu", NEEDS)["memory"] == f"{6 * 2**30}B"


def test_a_model_on_the_cpu_requires_no_gpu():
    wants, wants_not = (
        job_options(slurm(), "gpu", WorkerNeeds(2**30, model_wants_gpu=wants))["job_script_prologue"]
        for wants in (True, False)
    )
    assert "export SAM4EM_REQUIRE_GPU=1" in wants
    assert "export SAM4EM_REQUIRE_GPU=0" in wants_not


def test_certificates_reach_the_worker():
    security = Security(
        require_encryption=True, tls_ca_file="/ca.pem", tls_worker_cert="/cert.pem", tls_worker_key="/key.pem"
    )
    options = job_options(slurm(), "cpu", NEEDS, security)
    assert (options["protocol"], options["security"]) == ("tls://", security)
