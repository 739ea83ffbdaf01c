import pytest

from pipeline.errors import ConfigError
from pipeline.training import run_training, with_overrides


def test_overrides_reach_lists_and_numbers():
    values = {"training": {"seed": 1, "stages": [{"steps": 3}]}}
    with_overrides(values, ["training.seed=7", "training.stages.0.steps=11", "training.base=a/b.safetensors"])
    assert values == {"training": {"seed": 7, "stages": [{"steps": 11}], "base": "a/b.safetensors"}}


@pytest.mark.parametrize("override", ["seed", "=3", "training.stages.x.steps=3", "nothing.here=3", "a.4=1"])
def test_refuses_overrides_that_lead_nowhere(override):
    with pytest.raises(ConfigError, match="override"):
        with_overrides({"training": {"stages": [{}]}, "a": [1]}, [override])


def test_overrides_make_sections_that_the_file_leaves_out():
    values = with_overrides({"training": {}}, ["training.augment.noise_sigma=0.1", "loss.per_class.glia.weight=2"])
    assert values == {"training": {"augment": {"noise_sigma": 0.1}, "loss": {"per_class": {"glia": {"weight": 2}}}}}


def test_a_key_of_the_training_needs_no_section_in_front():
    assert with_overrides({"training": {}}, ["seed=4", "run_dir=x"]) == {"training": {"seed": 4}, "run_dir": "x"}


def test_a_misspelt_override_is_named_with_the_right_one(write_config):
    path = write_config()
    with pytest.raises(ConfigError, match=r"augment\.noise_sigm: no such key; did you mean 'noise_sigma'"):
        run_training(path, ["training.augment.noise_sigm=0.1"])
    with pytest.raises(ConfigError, match=r"trainig\.seed.*did you mean 'training'"):
        run_training(path, ["trainig.seed=1"])


def test_refuses_an_override_that_is_no_yaml():
    with pytest.raises(ConfigError, match=r"override .training.classes=\[a.: not valid YAML"):
        with_overrides({"training": {}}, ["training.classes=[a"])
    with pytest.raises(ConfigError, match="key 'seed' stands in line 1 already"):
        with_overrides({"training": {}}, ["training={seed: 1, seed: 2}"])
