import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.model import build_model
from sam4em_core.training.config import StageConfig
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.finetune import finish_stage, parameter_groups, prepare_stage


@pytest.fixture
def network(make_config):
    torch.manual_seed(0)
    net = build_model(ModelConfig.of(make_config().model))
    net.encoder_origin = "trained"
    return net


def stage(recipe, **changes):
    return StageConfig(name="s", recipe=recipe, steps=1, **changes)


def trained(network):
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def test_pre_training_trains_everything(network):
    prepare_stage(network, stage("pretrain"))
    assert trained(network) == {name for name, _ in network.named_parameters()}


def test_rates_and_decay_by_part(network):
    first = stage("full", learning_rate=1.0, encoder_rate_fraction=0.5, memory_rate_fraction=0.25, weight_decay=0.1)
    groups = parameter_groups(prepare_stage(network, first), first)
    by_parameter = {id(p): group for group in groups for p in group["params"]}
    named = dict(network.named_parameters())
    qkv = by_parameter[id(named["encoder.image_encoder.trunk.blocks.0.attn.qkv.weight"])]
    assert (qkv["lr"], qkv["weight_decay"]) == (0.5, 0.1)
    query = by_parameter[id(named["memory.layers.0.query.bias"])]
    assert (query["lr"], query["weight_decay"]) == (0.25, 0.0)
    assert by_parameter[id(named["decoder.head.full.0.weight"])]["lr"] == 1.0
    assert sum(len(group["params"]) for group in groups) == len(named)


def test_a_frozen_encoder_is_in_no_group(network):
    first = stage("full", encoder_rate_fraction=0.0)
    prepare_stage(network, first)
    assert not any(name.startswith("encoder.image_encoder.") for name in trained(network))


def test_stage_a_trains_adapters_of_q_and_v_and_the_coarse_path(network):
    prepare_stage(network, stage("lora-encoder", lora_rank=4))
    names = trained(network)
    of_encoder = {name for name in names if name.startswith("encoder.image_encoder.")}
    assert of_encoder
    assert all("lora_" in name and (".q." in name or ".v." in name) for name in of_encoder)
    assert any(name.startswith("decoder.coarse.") for name in names)
    assert any(name.startswith("memory.") for name in names)
    assert not any(name.startswith("decoder.refined.") for name in names)


def test_stage_b_leaves_encoder_and_coarse_decoder_alone(network):
    prepare_stage(network, stage("lora-decoder", lora_rank=4))
    names = trained(network)
    assert any(name.startswith("decoder.refined.") and "lora_" in name for name in names)
    assert any(name.startswith("decoder.head.") for name in names)
    assert not any(name.startswith(("encoder.", "decoder.coarse.", "memory.")) for name in names)


@pytest.mark.parametrize("recipe", ["lora-encoder", "lora-decoder"])
def test_a_finished_stage_has_the_layout_and_output_it_had(network, recipe):
    keys = set(network.state_dict())
    image = torch.rand(1, 1, 32, 32)
    prepare_stage(network, stage(recipe, lora_rank=4))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
        before = network.eval().forward_window(image).refined_BTKHW
        finish_stage(network)
        after = network.forward_window(image).refined_BTKHW
    assert set(network.state_dict()) == keys
    assert len(trained(network)) == len(list(network.parameters()))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


def test_refuses_lora_on_random_weights(network):
    network.encoder_origin = "random"
    with pytest.raises(TrainingSetupError, match="random weights"):
        prepare_stage(network, stage("lora-decoder"))
