from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.config import RunConfig, digest_of, read_config
from pipeline.config.clusters import KINDS, ClusterSection, GpusCluster, SlurmCluster
from pipeline.config.read import parse_config
from pipeline.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[4] / "configs" / "clusters").glob("*.yaml"))
RUN = {"image": {"url": "em.zarr"}, "outputs": [{"url": "out.zarr"}], "segmenter": {"kind": "threshold"}}


def parse(**cluster):
    return parse_config({**RUN, "cluster": cluster}, RunConfig, "run.yaml").cluster


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_can_be_chosen_by_one_key(path, tmp_path):
    (tmp_path / "clusters").mkdir()
    (tmp_path / "clusters" / path.name).write_text(path.read_text())
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**RUN, "cluster": f"clusters/{path.name}"}))
    assert read_config(config).cluster.kind == path.stem


def test_there_is_an_example_of_every_kind():
    assert {path.stem for path in EXAMPLES} == set(KINDS)


def test_the_cluster_is_no_part_of_the_digest(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**RUN, "cluster": {"workers": 3}}))
    digests = {digest_of(read_config(config, path)) for path in EXAMPLES} | {digest_of(read_config(config))}
    assert len(digests) == 1
    assert read_config(config, EXAMPLES[0]).cluster != read_config(config).cluster


def test_a_resolved_config_can_be_read_again():
    for path in EXAMPLES:
        section = TypeAdapter(ClusterSection).validate_python(yaml.safe_load(path.read_text()))
        config = RunConfig.model_validate({**RUN, "cluster": section})
        assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ({"kind": "slrum"}, r"cluster\.kind must be one of local, gpus, slurm, lsf, kubernetes, scheduler"),
        ({"wrkers": 2}, r"cluster\.wrkers: no such key; did you mean 'workers'"),
        ({"kind": "slurm"}, "no jobs: give gpu_workers, cpu_workers or both"),
        ({"kind": "slurm", "cpu_workers": {"jobs": 2, "waltime": "1:00:00"}}, "did you mean 'walltime'"),
        ({"kind": "slurm", "cpu_workers": {"jobs": 2, "walltime": "5h"}}, r"cpu_workers\.walltime: .*HH:MM:SS.*'5h'"),
        ({"kind": "slurm", "cpu_workers": {"jobs": 0}}, r"cluster\.cpu_workers\.jobs: .*greater than 0"),
        ({"kind": "scheduler"}, "give address or file, one of them"),
        ({"kind": "scheduler", "address": "tls://a:1"}, "is encrypted: give tls with ca_file, cert_file and key_file"),
        ({"kind": "gpus", "devices": [1, 1]}, "give every GPU once"),
    ],
)
def test_what_cannot_be(cluster, told):
    with pytest.raises(ConfigError, match=told):
        parse(**cluster)


def test_a_walltime_shorter_than_a_block_is_refused():
    group = {"jobs": 1, "walltime": "00:15:00"}
    with pytest.raises(ConfigError, match=r"gpu_workers\.walltime of 900 s leaves a worker 589 s, .*block_minutes: 10"):
        parse(kind="slurm", gpu_workers=group, cpu_workers={"jobs": 1})
    section = parse(kind="slurm", gpu_workers=group, block_minutes=9.5)
    assert section.shortest_life_s(section.gpu_workers) >= 60 * 9.5


@pytest.mark.parametrize("text", ['"12:30:00"', "12:30:00", "45000"])
def test_yaml_may_read_a_walltime_as_seconds(text):
    section = parse(**yaml.safe_load(f"{{kind: lsf, cpu_workers: {{jobs: 1, walltime: {text}}}}}"))
    assert section.cpu_workers.walltime == 45000


def test_a_life_ends_before_its_walltime_whatever_the_stagger():
    section = parse(kind="slurm", cpu_workers={"jobs": 1, "walltime": "02:00:00"}, spare_minutes=5)
    life_s = section.lifetime_s(section.cpu_workers)
    assert life_s * 1.1 == pytest.approx(7200 - 300)


def test_who_runs_the_model():
    groups = {"gpu_workers": {"jobs": 3, "workers_per_job": 4}, "cpu_workers": {"jobs": 5}}
    assert SlurmCluster.model_validate({"kind": "slurm", **groups}).num_model_workers == 12
    assert parse(kind="slurm", cpu_workers={"jobs": 5}).num_model_workers == 5
    assert GpusCluster(kind="gpus").num_model_workers is None
    assert parse(kind="kubernetes", manifest="m.yaml").num_model_workers is None


def test_a_cluster_file_that_is_not_there(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**RUN, "cluster": "nowhere.yaml"}))
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: there is no such file"):
        read_config(config)


def test_an_error_in_a_cluster_file_names_it(tmp_path):
    (tmp_path / "site.yaml").write_text("kind: slurm\nqueue: gpu\n")
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**RUN, "cluster": "site.yaml"}))
    with pytest.raises(ConfigError, match=r"run\.yaml with cluster: .*site\.yaml: cluster\.queue: no such key"):
        read_config(config)
