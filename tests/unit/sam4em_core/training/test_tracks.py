from pathlib import Path

import pytest

from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.training.tracks import mask_start

ROUND_0 = Path("round-0.safetensors")


@pytest.fixture
def start(spatial_config, tiny_network, tiny_header, tmp_path):
    """What the mask track starts from when its base knows some classes."""
    path = tmp_path / "base.safetensors"

    def make(known, **masks):
        network = tiny_network(num_classes=len(known))
        header = tiny_header(network.config).model_copy(update={"classes": known, "thresholds": (0.5,) * len(known)})
        save_checkpoint(path, network, header)
        config = spatial_config()
        return mask_start(config.model_copy(update={"masks": {**config.masks, "base": str(path), **masks}}), ROUND_0)

    return make


def test_a_base_that_knows_all_classes_is_the_start(start):
    assert start(("mitochondrion",)) == {}
    assert start(("synapse", "mitochondrion")) == {}


def test_of_a_base_to_which_a_class_is_new_the_memory_is_taken(start, tmp_path, caplog):
    with caplog.at_level("INFO"):
        found = start(("synapse",))
    assert found == {"base": str(ROUND_0), "memory_base": str(tmp_path / "base.safetensors")}
    assert "does not know mitochondrion" in caplog.text
    assert start(("synapse",), memory_base="own.safetensors")["memory_base"] == "own.safetensors"


def test_without_a_base_round_zero_is_the_start_and_null_means_random_weights(spatial_config):
    config = spatial_config()
    assert mask_start(config, ROUND_0) == {"base": str(ROUND_0)}
    assert mask_start(config.model_copy(update={"masks": {**config.masks, "base": None}}), ROUND_0) == {}


def test_official_weights_know_no_class(spatial_config):
    config = spatial_config()
    base = {**config.masks, "base": "sam2.1_hiera_tiny.pt"}
    found = mask_start(config.model_copy(update={"masks": base}), ROUND_0)
    assert found == {"base": str(ROUND_0), "memory_base": "sam2.1_hiera_tiny.pt"}
