"""Every kind of the config has its own way to be opened; each is told by the error of what it lacks here."""

import pytest
from pydantic import TypeAdapter

from pipeline.config.clusters import KINDS, ClusterSection, LocalCluster
from pipeline.errors import Sam4emError
from pipeline.run.cluster.opening import check_cluster, open_cluster
from pipeline.run.cluster.settings import WorkerNeeds

LACKING = {
    "gpus": ({}, "torch sees none"),
    "slurm": ({"cpu_workers": {"jobs": 1}}, "no `sbatch` on the PATH"),
    "lsf": ({"cpu_workers": {"jobs": 1}}, "no `bsub` on the PATH"),
    "kubernetes": ({"manifest": "nowhere.yaml"}, r"reading the manifest nowhere\.yaml"),
    "scheduler": ({"file": "nowhere.json"}, r"cluster\.file nowhere\.json holds no address"),
}


def test_every_kind_but_the_local_one_is_listed():
    assert {*LACKING, "local"} == set(KINDS)


@pytest.mark.parametrize("kind", LACKING)
def test_what_is_lacking_is_told(kind, monkeypatch, tmp_path):
    for room in ("local", "opening"):
        monkeypatch.setattr(f"pipeline.run.cluster.{room}.count_gpus", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    values, told = LACKING[kind]
    section = TypeAdapter(ClusterSection).validate_python({"kind": kind, **values})
    with pytest.raises(Sam4emError, match=told) as caught, open_cluster(section, WorkerNeeds(2**30)):
        pass
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", sorted(set(LACKING) - {"scheduler"}))
def test_it_is_told_before_anything_is_opened(kind, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.run.cluster.opening.count_gpus", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    values, told = LACKING[kind]
    section = TypeAdapter(ClusterSection).validate_python({"kind": kind, **values})
    with pytest.raises(Sam4emError, match=told):
        check_cluster(section, WorkerNeeds(2**30))


def test_a_local_cluster_lacks_nothing():
    check_cluster(LocalCluster(), WorkerNeeds(2**30))
