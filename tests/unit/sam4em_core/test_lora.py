import pytest
import torch

from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.errors import CheckpointError, CoreConfigError
from sam4em_core.lora import add_adapter, fuse_qkv, has_adapters, merge_adapters, merged_updates, split_qkv


@pytest.fixture
def network(tiny_network):
    made = tiny_network(embed_dim=16)
    made.encoder_origin = "trained"
    return made


def _stir(network):
    """Give every adapter an effect: peft starts with B = 0."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)


def test_split_equals_fused_bit_for_bit_in_every_block(network):
    fused = {name: m for name, m in network.named_modules() if name.endswith("attn.qkv")}
    inputs = {name: torch.randn(2, 8, 8, m.in_features) for name, m in fused.items()}
    before = {name: m(inputs[name]) for name, m in fused.items()}
    assert split_qkv(network) == 7
    widths = set()
    for name, expected in before.items():
        split = network.get_submodule(name)
        assert torch.equal(split(inputs[name]), expected)
        widths.add((split.q.in_features, split.q.out_features))
    assert (16, 16) in widths
    assert (16, 32) in widths, "a stage-transition block has wider q, k, v than its input"


def test_split_and_fuse_give_the_same_network(network):
    images = torch.rand(1, 2, 64, 64)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = network.forward_window(images).refined_BTKHW
    split_qkv(network)
    assert torch.equal(network.forward_window(images).refined_BTKHW, before)
    assert fuse_qkv(network) == 7
    assert list(network.state_dict()) == list(state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_encoder_adapter_sits_on_q_and_v_only(network):
    names = add_adapter(network, "encoder", rank=2, alpha=4)
    assert len(names) == 14
    assert {name.rsplit(".", 1)[1] for name in names} == {"q", "v"}
    assert all(name.startswith("encoder.image_encoder.trunk.blocks.") for name in names)


def test_k_gets_no_gradient(network):
    add_adapter(network, "encoder", rank=2)
    _stir(network)
    network.forward_window(torch.rand(1, 2, 64, 64)).refined_BTKHW.square().mean().backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)
    assert not any(".k." in name for name in with_gradient)


def test_decoder_adapter_comes_beside_the_encoder_adapter(network):
    images = torch.rand(1, 2, 64, 64)
    add_adapter(network, "encoder", rank=2)
    _stir(network)
    with_encoder = network.forward_window(images).refined_BTKHW
    names = add_adapter(network, "decoder", rank=2)
    assert all(name.startswith("decoder.refined.") for name in names)
    assert {name.rsplit(".", 1)[1] for name in names} == {"q_proj", "v_proj"}
    assert torch.equal(network.forward_window(images).refined_BTKHW, with_encoder), "both adapters must be active"


def test_merge_gives_official_keys_and_the_same_result(network):
    images = torch.rand(1, 2, 64, 64)
    keys = list(network.state_dict())
    plain = network.forward_window(images).refined_BTKHW
    add_adapter(network, "encoder", rank=2)
    add_adapter(network, "decoder", rank=2)
    _stir(network)
    adapted = network.forward_window(images).refined_BTKHW
    assert (adapted - plain).abs().max() > 1e-3
    assert merge_adapters(network) == 14 + 14
    assert list(network.state_dict()) == keys
    assert not has_adapters(network)
    torch.testing.assert_close(network.forward_window(images).refined_BTKHW, adapted, rtol=1e-4, atol=2e-4)


def test_merged_weights_reload_strictly(network, tiny_network):
    add_adapter(network, "encoder", rank=2)
    _stir(network)
    merge_adapters(network)
    other = tiny_network(seed=8, embed_dim=16)
    other.load_state_dict(network.state_dict(), strict=True)
    images = torch.rand(1, 1, 64, 64)
    assert torch.equal(other.forward_window(images).refined_BTKHW, network.forward_window(images).refined_BTKHW)


def test_lora_on_a_random_encoder_is_refused(tiny_network):
    with pytest.raises(CoreConfigError, match="random weights"):
        add_adapter(tiny_network(), "encoder")


def test_an_adapter_is_added_once(network):
    add_adapter(network, "encoder", rank=2)
    with pytest.raises(CoreConfigError, match="already"):
        add_adapter(network, "encoder", rank=2)


def test_unmerged_weights_are_not_saved_nor_fused(network, tiny_header, tmp_path):
    add_adapter(network, "encoder", rank=2)
    with pytest.raises(CheckpointError, match="merge the LoRA adapters first"):
        save_checkpoint(tmp_path / "m.safetensors", network, tiny_header(network.config))
    with pytest.raises(CoreConfigError, match="merge them first"):
        fuse_qkv(network)


def test_without_a_second_decoder_the_first_is_adapted(tiny_network):
    network = tiny_network(two_stage=False)
    network.encoder_origin = "trained"
    assert all(name.startswith("decoder.coarse.") for name in add_adapter(network, "decoder", rank=2))


def test_what_was_merged_stays_on_record_and_adds_up(network):
    name = "encoder.image_encoder.trunk.blocks.0.attn.qkv"
    before = network.get_parameter(f"{name}.weight").detach().clone()
    for rank in (2, 3):
        add_adapter(network, "encoder", rank=rank, alpha=4)
        _stir(network)
        merge_adapters(network)
    update = merged_updates(network)[f"{name}.q"]
    width = len(before) // 3
    assert update.down.shape[0] == 5
    after = network.get_parameter(f"{name}.weight")[:width]
    torch.testing.assert_close(after, before[:width] + update.up @ update.down)
    assert f"{name}.k" not in merged_updates(network)
