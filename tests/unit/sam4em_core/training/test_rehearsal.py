"""What would stop a dual-track training after hours is found before it begins."""

import pytest

from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.errors import CheckpointError, CoreConfigError
from sam4em_core.model import build_model
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.rehearsal import rehearse
from sam4em_core.training.spatial_config import SpatialConfig
from sam4em_core.training.subjects import subjects_of


@pytest.fixture
def subjects(sparse):
    return subjects_of([sparse()], ("mito",), (8.0, 8.0, 8.0))


@pytest.fixture
def changed(spatial_config):
    """The small training with keys of its parts changed."""

    def make(**changes):
        config = spatial_config(with_direct=True, rounds=2)
        values = config.model_dump(mode="json")
        for place, value in changes.items():
            part, *keys = place.split("__")
            section = values[part] = values[part] or {}
            for key in keys[:-1]:
                section = section.setdefault(key, {}) if not isinstance(section, list) else section[int(key)]
            section[keys[-1]] = value
        return SpatialConfig.model_validate(values)

    return make


def test_what_can_begin_passes_and_every_part_is_named(changed, subjects):
    config = changed(auxiliary__seed=2)
    assert config.parts == ("auxiliary", "propagation", "direct", "sdf", "masks", "later_sdf", "later_masks")
    rehearse(config, subjects)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"sdf__stages__0__crop_voxels": 40}, TrainingSetupError, r"^sdf: stages\.0: .*crop_voxels is 40"),
        ({"later_masks__stagess": []}, TrainingSetupError, r"^later_masks: stagess: "),
        ({"masks__model__sdf_memory__reech": 3}, CoreConfigError, r"^masks: .*reech"),
        ({"direct__model__memory_slots": 0}, CoreConfigError, r"^direct: .*memory_slots"),
        ({"sdf__unet__tau": 3}, CoreConfigError, r"^sdf: training\.unet: tau: "),
        (
            {"sdf__stages__0__window_slices": 5},
            TrainingSetupError,
            r"^sdf: stage only: windows of \(5, 32, 32\)",
        ),
        ({"masks__stages__0__recipe": "lora-encoder"}, TrainingSetupError, r"^masks: stage only: LoRA on an encoder"),
        ({"masks__base": "nothing.safetensors"}, CheckpointError, r"^masks: .*nothing\.safetensors"),
        (
            {"masks__model__d_model": 128},
            TrainingSetupError,
            r"^masks: the base of round 0 \(propagation\) has",
        ),
        ({"auxiliary__model__decoder_mlp_dim": 32}, TrainingSetupError, r"^propagation: the base of the auxiliary vol"),
        ({"later_sdf__unet__tau_nm": 96}, TrainingSetupError, r"^later_sdf: the base of round 1 has .*tau_nm 64"),
        ({"later_masks__model__sdf_memory__mlp_dim": 32}, TrainingSetupError, r"^later_masks: the base of round 1 has"),
    ],
)
def test_what_could_not_begin_later_is_refused_now(changed, subjects, changes, error, message):
    with pytest.raises(error, match=message):
        rehearse(changed(**changes), subjects)


def test_the_memory_of_a_base_that_does_not_know_the_class(changed, subjects, make_config, tiny_header, tmp_path):
    path = tmp_path / "base.safetensors"
    network = build_model(ModelConfig.of(make_config().model))
    save_checkpoint(path, network, tiny_header(network.config).model_copy(update={"classes": ("other",)}))
    with pytest.raises(TrainingSetupError, match=r"^masks: memory_base .*base\.safetensors has memory: volume"):
        rehearse(changed(masks__base=str(path)), subjects)


def test_a_base_of_other_sizes_for_the_mask_track(changed, subjects, tiny_network, tiny_header, tmp_path):
    path = tmp_path / "base.safetensors"
    network = tiny_network(d_model=128)
    save_checkpoint(path, network, tiny_header(network.config))
    with pytest.raises(TrainingSetupError, match=r"^masks: the base .*base\.safetensors has another architecture"):
        rehearse(changed(masks__base=str(path)), subjects)


def test_other_axes_need_cubes_on_the_lattice_of_the_masks(changed, sparse):
    config = changed(sdf__sampling={"other_axes_fraction": 0.5})
    flat = subjects_of([sparse()], ("mito",), (16.0, 8.0, 8.0))
    with pytest.raises(TrainingSetupError, match=r"^sdf: volume ball: sampling\.other_axes_fraction needs voxels"):
        rehearse(config, flat)
    # Auxiliary volumes are others.
    rehearse(changed(auxiliary__sampling={"other_axes_fraction": 0.5}), flat)


def test_a_base_of_other_classes_and_patches_serves_the_mask_track(changed, subjects, tiny_header, tmp_path, caplog):
    config = changed()
    part = config.part("masks")
    unet = {**config.part("sdf").unet, "voxel_size_zyx_nm": (16.0, 16.0, 16.0), "num_classes": 3}
    model = ModelConfig.of({**part.model, "num_classes": 3, "unet": {**unet, "patch_zyx": (16, 16, 16)}})
    save_checkpoint(tmp_path / "base.safetensors", build_model(model), tiny_header(model))
    with caplog.at_level("INFO"):
        rehearse(changed(masks__base=str(tmp_path / "base.safetensors")), subjects)
    # What begins at random is said when it begins.
    assert "tensors taken over" not in caplog.text
    other = ModelConfig.of({**part.model, "num_classes": 3, "unet": {**unet, "tau_nm": 96.0}})
    save_checkpoint(tmp_path / "other.safetensors", build_model(other), tiny_header(other))
    with pytest.raises(TrainingSetupError, match=r"^masks: the base .*other\.safetensors has another.*'tau_nm': 96"):
        rehearse(changed(masks__base=str(tmp_path / "other.safetensors")), subjects)


def test_only_a_network_that_round_1_may_start_from_has_to_fit(changed, subjects):
    config = changed(direct__model__decoder_mlp_dim=32)
    with pytest.raises(TrainingSetupError, match=r"^masks: the base of round 0 \(direct\) has"):
        rehearse(config, subjects)
    started = config.round_zero.model_copy(update={"start": "propagation"})
    rehearse(config.model_copy(update={"round_zero": started}), subjects)
