import pytest
from pydantic import ValidationError

from sam4em_core.training.config import TrainingConfig


def test_fills_in_defaults(make_config):
    config = make_config()
    assert config.window_slices == 3
    assert config.total_steps == 4
    assert config.augment.rotation_degrees == 180.0


def test_refuses_a_misspelt_key(make_config):
    with pytest.raises(ValidationError, match="learning_rat"):
        make_config(stage={"learning_rat": 1.0})


def test_refuses_a_crop_that_the_encoder_cannot_halve(make_config):
    with pytest.raises(ValidationError, match="multiple of 32"):
        make_config(stage={"crop_voxels": 150})


def test_refuses_clashing_classes(make_config):
    with pytest.raises(ValidationError, match="each name once"):
        make_config(classes=["glia", "glia"])


def test_refuses_two_stages_of_one_name(make_config):
    stage = {"name": "a", "recipe": "full", "steps": 1}
    with pytest.raises(ValidationError, match="same name"):
        make_config(stages=[stage, stage])


def test_reads_the_number_that_yaml_takes_for_text():
    stage = {"name": "a", "recipe": "full", "steps": 1, "learning_rate": "1e-3"}
    config = TrainingConfig.model_validate({"name": "a", "classes": ["b"], "stages": [stage]})
    assert config.stages[0].learning_rate == 0.001


def test_is_frozen(make_config):
    with pytest.raises(ValidationError, match="frozen"):
        make_config().seed = 3


def test_other_axes_need_cubes(make_config):
    sampling = {"other_axes_fraction": 0.5}
    make_config(sampling=sampling)
    with pytest.raises(ValidationError, match="cubes"):
        make_config(sampling=sampling, voxel_size_zyx_nm=(30.0, 8.0, 8.0))


def test_processor_time_is_that_of_one_thread(make_config):
    make_config(clock="cpu")
    with pytest.raises(ValidationError, match="set threads"):
        make_config(clock="cpu", threads=2)


CARRIER = {"memory": "sdf", "sdf_memory": {"source": "logits", "direction": "lower", "injection": "sigmoid"}}


def test_carrying_masks_needs_the_memory_of_masks_and_windows(make_config):
    assert make_config(target="propagation", model=CARRIER).target == "propagation"
    with pytest.raises(ValidationError, match="needs SAM2's own memory"):
        make_config(target="propagation", model={"memory": "sdf"})
    with pytest.raises(ValidationError, match="at least 2 slices"):
        make_config(target="propagation", model=CARRIER, stage={"window_slices": 1})
