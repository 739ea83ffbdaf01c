import pytest
from pydantic import ValidationError

from sam4em_core.config import ModelConfig
from sam4em_core.training.spatial_config import SpatialConfig, merged

STAGE = {"name": "a", "recipe": "pretrain", "steps": 3, "window_slices": 8, "crop_voxels": 32}


def config(**changes):
    values = {
        "name": "tiny",
        "shared": {"classes": ["mito"], "base": "b.safetensors", "model": {"d_model": 64, "sdf_memory": {"reach": 3}}},
        "propagation": {"stages": [STAGE]},
        "sdf": {"voxel_size_zyx_nm": [16.0, 16.0, 16.0], "unet": {"tau_nm": 64}, "stages": [STAGE]},
        "masks": {"stages": [STAGE]},
    }
    return SpatialConfig.model_validate({**values, **changes})


def test_sections_are_merged_key_by_key():
    below = {"a": 1, "b": {"c": 2, "d": [3]}, "e": {"f": 4}}
    assert merged(below, {"b": {"d": [5]}, "e": {}}) == {"a": 1, "b": {"c": 2, "d": [5]}, "e": {}}
    assert below["e"] == {"f": 4}


def test_every_part_is_what_its_track_needs():
    item = config()
    carrier = item.part("propagation")
    assert carrier.target == "propagation"
    assert carrier.model["sdf_memory"] == {
        "reach": 3, "source": "logits", "direction": "lower", "include_own": False, "injection": "sigmoid"
    }  # fmt: skip
    unet = item.part("sdf")
    assert (unet.target, unet.base, unet.model) == ("sdf", None, {})
    assert unet.augment.scale_fraction == unet.augment.elastic_voxels == 0
    masks = item.part("masks", sdf="u.safetensors")
    assert (masks.target, masks.sdf, masks.base) == ("masks", "u.safetensors", "b.safetensors")
    assert masks.model == {"d_model": 64, "sdf_memory": {"reach": 3}, "memory": "sdf"}


def test_a_unet_starts_from_its_own_base_alone():
    unet = {**config().sdf, "base": "unet.safetensors"}
    item = config(sdf=unet)
    assert item.part("sdf").base == "unet.safetensors"
    assert item.part("masks").base == "b.safetensors"
    assert config().part("sdf").base is None


@pytest.mark.parametrize(
    ("name", "section", "found"),
    [
        ("propagation", {"target": "masks"}, "target"),
        ("propagation", {"classes": ["mito"]}, "classes"),
        ("propagation", {"model": {"sdf_memory": {"source": "sdf", "reach": 2}}}, "model.sdf_memory.source"),
        ("masks", {"model": {"memory": "volume"}}, "model.memory"),
        ("masks", {"sdf": "u.safetensors"}, "sdf"),
        ("later_sdf", {"base": "u.safetensors"}, "base"),
        ("later_masks", {"base": "b.safetensors", "memory_base": "m.pt"}, "base, memory_base"),
    ],
)
def test_what_would_be_overruled_is_refused(name, section, found):
    with pytest.raises(ValidationError, match=f"{name} sets {found}, which follows from what {name} is"):
        config(**{name: {"stages": [STAGE], **section}})


@pytest.mark.parametrize(
    ("name", "section", "complaint"),
    [
        ("propagation", {"loss": {"per_class": {"mito": {"weight": 2}}}}, "per_class names"),
        ("sdf", {"augment": {"elastic_voxels": 2.0}}, "warping change distances"),
        ("sdf", {"model": {"d_model": 64}}, "are not for it"),
    ],
)
def test_what_a_part_has_no_use_for_is_shared_without_it_and_refused_in_its_own_section(name, section, complaint):
    shared = {**config().shared, **section}
    assert config(shared=shared).part(name)
    with pytest.raises(ValidationError, match=complaint):
        config(**{name: {"stages": [STAGE], **section}}).part(name)


def test_later_rounds_differ_by_what_they_say():
    item = config(later_masks={"stages": [{**STAGE, "steps": 9}]})
    assert item.part("later_masks").stages[0].steps == 9
    assert item.part("later_sdf").stages[0].steps == 3


@pytest.mark.parametrize("start", ["direct", "best"])
def test_round_zero_needs_the_network_it_starts_from(start):
    missing = "direct" if start == "direct" else "propagation and"
    with pytest.raises(ValidationError, match=f"no section {missing}"):
        config(round_zero={"start": start}, **({"propagation": None} if start == "best" else {}))


def test_what_learns_from_the_labelled_slices_alone_has_a_3d_memory_unless_told():
    item = config(direct={"stages": [STAGE]})
    assert item.part("direct").model.get("memory", ModelConfig.model_fields["memory"].default) == "volume"
    item = config(direct={"stages": [STAGE], "model": {"memory": "none"}})
    assert item.part("direct").model["memory"] == "none"


@pytest.mark.parametrize("place", ["direct", "shared"])
def test_round_zero_has_no_distances_to_look_at(place):
    parts = {"shared": config().shared, "direct": {"stages": [STAGE]}}
    parts[place] = {**parts[place], "model": {"memory": "sdf"}}
    with pytest.raises(ValidationError, match="round 0 has no U-Net: set volume or none"):
        config(**parts)


def test_a_misspelt_key_and_a_fifth_round_are_refused():
    with pytest.raises(ValidationError, match="rouns"):
        config(rouns=2)
    with pytest.raises(ValidationError, match="less than or equal to 4"):
        config(rounds=5)
