import pytest
from pydantic import BaseModel, model_validator

from pipeline.config import RunConfig, digest_of, read_config
from pipeline.config.read import parse_config
from pipeline.errors import ConfigError

GOOD = """
image: {url: em.zarr, roi: "0:5,0:7,0:11"}
outputs: [{url: out.zarr, chunk_zyx: [16, 32, 64]}]
segmenter: {kind: sam4em}
"""


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def message(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, text))
    return str(caught.value)


def test_defaults_are_filled_in(tmp_path):
    config = read_config(write(tmp_path, GOOD))
    assert config.segmenter.model == "mito-lucchi"
    assert config.outputs[0].chunk_zyx == (16, 32, 64)
    assert config.outputs[0].format == "ome-zarr"
    assert config.cluster.workers == 2


def test_a_misspelt_key_names_file_key_and_the_right_one(tmp_path):
    text = message(tmp_path, GOOD + "plan: {blck_zyx: [1, 2, 3]}")
    assert "run.yaml" in text
    assert "plan.blck_zyx" in text
    assert "'block_zyx'" in text


def test_a_misspelt_key_deep_inside_lists_and_unions_is_found(tmp_path):
    text = message(tmp_path, GOOD.replace("chunk_zyx", "chnk_zyx").replace("kind: sam4em", "kind: sam4em, modle: x"))
    assert "outputs.0.chnk_zyx: no such key; did you mean 'chunk_zyx'?" in text
    assert "segmenter.modle: no such key; did you mean 'model'?" in text
    assert len(text.splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("classes: {m: {method: watershed, stitch: any}}", "undoes a watershed"),
        ("classes: {m: {threshold: 0.6, seed_threshold: 0.5}}", "must not be below threshold"),
        ("classes: {mito: {}, Mito: {}}", "clash"),
        ("classes: {'../x': {}}", "names a folder"),
        ("plan: {task_memory_gib: 0}", "greater than 0"),
        ("plan: {block_zyx: [16, 16]}", "plan.block_zyx"),
        ("cluster: {workers: 1.5}", "valid integer"),
        ("storage: {credentials: secret}", "storage.credentials"),
        ("faults: {retries: no}", "faults.retries"),
    ],
)
def test_bad_values_say_what_was_found(tmp_path, change, expected):
    assert expected in message(tmp_path, GOOD + change)


def test_two_outputs_at_one_address_are_refused(tmp_path):
    text = GOOD.replace("outputs: [", "outputs: [{url: out.zarr/}, ")
    assert "same url" in message(tmp_path, text)


def test_no_file_no_mapping_and_no_yaml(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_config(tmp_path / "none.yaml")
    assert "expected a mapping" in message(tmp_path, "- a\n- b")
    assert "not valid YAML" in message(tmp_path, "a: [")


def test_yaml_cannot_run_code(tmp_path):
    assert "not valid YAML" in message(tmp_path, "image: !!python/object/apply:os.getcwd []")


@pytest.mark.parametrize(
    ("text", "key", "lines"),
    [
        ("classes:\n  mito: {threshold: 0.3}\n  mito: {threshold: 0.7}", "mito", (6, 7)),
        ("cluster: {workers: 2}\nplan: {}\ncluster: {workers: 3}", "cluster", (5, 7)),
        ("plan: {block_zyx: [1, 2, 3],\n  block_zyx: [3, 2, 1]}", "block_zyx", (5, 6)),
        ("faults:\n  retries: 1\n  'retries': 2", "retries", (6, 7)),
    ],
)
def test_a_key_given_twice_names_key_and_lines(tmp_path, text, key, lines):
    found = message(tmp_path, GOOD + text)
    assert f"run.yaml: line {lines[1]}: key {key!r} stands in line {lines[0]} already" in found


def test_a_key_given_twice_inside_a_list_is_found(tmp_path):
    text = GOOD.replace("chunk_zyx: [16, 32, 64]", "num_mips: 1, num_mips: 2")
    assert "key 'num_mips' stands in line 3 already" in message(tmp_path, text)


def test_merged_keys_may_be_given_again(tmp_path):
    text = GOOD + "classes:\n  a: &rule {threshold: 0.3, min_size_nm3: 5}\n  b: {<<: *rule, threshold: 0.7}"
    classes = read_config(write(tmp_path, text)).classes
    assert (classes["b"].threshold, classes["b"].min_size_nm3) == (0.7, 5.0)


def test_the_digest_follows_the_result_and_nothing_else():
    base = {"image": {"url": "a"}, "outputs": [{"url": "b"}], "segmenter": {"kind": "threshold"}}

    def digest(**changes):
        return digest_of(parse_config({**base, **changes}, RunConfig, "test"))

    assert digest() == digest(cluster={"workers": 7}, faults={"retries": 1}, logging={"level": "debug"})
    assert digest() != digest(image={"url": "c"})
    assert digest() != digest(classes={"object": {"threshold": 0.4}})
    assert digest() != digest(plan={"task_memory_gib": 1.0})


def test_a_key_of_an_earlier_version_is_explained():
    values = {
        "image": {"url": "em.zarr"},
        "outputs": [{"url": "out"}],
        "segmenter": {"kind": "threshold"},
        "cluster": {"scheduler_address": "tcp://host:8786"},
    }
    with pytest.raises(ConfigError, match=r"scheduler_address: this config is of an earlier version; it is .*address"):
        parse_config(values, RunConfig, "old.yaml")


def test_a_section_that_contradicts_itself_is_not_printed_whole():
    class Pair(BaseModel):
        low: int
        high: int

        @model_validator(mode="after")
        def _check(self):
            if self.low > self.high:
                raise ValueError(f"low {self.low} lies above high {self.high}")
            return self

    with pytest.raises(ConfigError) as caught:
        parse_config({"low": 3, "high": 2}, Pair, "x.yaml")
    assert str(caught.value) == "x.yaml: (whole file): low 3 lies above high 2"
