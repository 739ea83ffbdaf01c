import pytest
import safetensors.torch
import torch

from sam4em_core.checkpoint import load_checkpoint, save_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.delta import find_base, save_delta, updated
from sam4em_core.errors import CheckpointError
from sam4em_core.export import export_checkpoint
from sam4em_core.header import CheckpointHeader, sha256_of
from sam4em_core.lora import LoraUpdate, add_adapter, merge_adapters, merged_updates
from sam4em_core.model import build_model
from sam4em_core.official import load_official


def official_like(network):
    """A state dict of the official layout for a small network: what the loader needs, random."""
    state = {f"image_encoder.{k}": v for k, v in network.encoder.image_encoder.state_dict().items()}
    state |= {f"sam_mask_decoder.{k}": v for k, v in network.decoder.coarse.state_dict().items()}
    state["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = torch.randn(2, 32)
    return {name: tensor.clone() for name, tensor in state.items() if "class_bias" not in name}


@pytest.fixture
def base(tmp_path, tiny_network):
    (tmp_path / "bases").mkdir()
    path = tmp_path / "bases" / "base.pt"
    torch.save({"model": official_like(tiny_network(seed=3))}, path)
    return path


@pytest.fixture
def trained(tiny_network, base):
    """A network on the base, with adapters of two stages merged and one part trained in full."""
    network = tiny_network(seed=11)
    load_official(network, base)
    torch.manual_seed(5)
    for which in ("encoder", "encoder", "decoder"):
        add_adapter(network, which, rank=2)
        for name, parameter in network.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        merge_adapters(network)
    network.decoder.coarse.mask_tokens.weight.data += 1
    return network.eval()


@pytest.fixture
def saved(trained, base, tiny_header, tmp_path):
    changes = {"stored": "delta", "base_sha256": sha256_of(base), "base_name": base.name, "encoder_origin": "official"}
    header = tiny_header(trained.config, **changes)
    path = tmp_path / "delta.safetensors"
    save_delta(path, trained, header, base)
    return path


def test_what_is_saved_comes_back_with_the_same_output(saved, trained, base):
    image = torch.rand(1, 2, 64, 64)
    loaded = load_checkpoint(saved, base=base).network
    again = load_checkpoint(saved, base=base).network
    with torch.no_grad():
        wanted, found = (net.forward_window(image).refined_BTKHW for net in (trained, loaded))
        assert torch.equal(found, again.forward_window(image).refined_BTKHW)
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    assert loaded.encoder_origin == "official"


def test_it_holds_factors_and_new_parts_but_no_weight_of_the_base(saved, trained):
    tensors = safetensors.torch.load_file(saved)
    assert "encoder.image_encoder.trunk.blocks.0.attn.qkv.weight" not in tensors
    assert "encoder.image_encoder.neck.convs.0.conv.weight" not in tensors
    assert tensors["encoder.image_encoder.trunk.blocks.0.attn.qkv.q.down"].shape[0] == 4
    assert "encoder.image_encoder.trunk.blocks.0.attn.qkv.k.down" not in tensors
    assert "decoder.refined.transformer.layers.0.self_attn.q_proj.up" in tensors
    assert "decoder.coarse.mask_tokens.weight" in tensors
    assert "memory.layers.0.query.weight" in tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}


def test_a_weight_trained_beside_its_adapter_is_stored_in_full(trained, base, tiny_header, tmp_path):
    name = "encoder.image_encoder.trunk.blocks.0.attn.qkv.weight"
    trained.get_parameter(name).data[0, 0] += 0.1
    changes = {"stored": "delta", "base_sha256": sha256_of(base), "base_name": base.name}
    save_delta(tmp_path / "d.safetensors", trained, tiny_header(trained.config, **changes), base)
    loaded = load_checkpoint(tmp_path / "d.safetensors", base=base)
    wanted = trained.get_parameter(name).half().float()
    assert torch.equal(loaded.network.get_parameter(name), wanted)


def test_an_update_goes_to_its_third_of_qkv():
    update = LoraUpdate(torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0], [20.0]]))
    whole = updated(torch.zeros(6, 2), "a.qkv.weight", {"a.qkv.v": update})
    assert torch.equal(whole, torch.tensor([[0.0, 0.0]] * 4 + [[10.0, 20.0], [20.0, 40.0]]))


@pytest.mark.parametrize("place", ["folder", "file", "beside"])
def test_the_base_is_found_by_its_digest(saved, base, monkeypatch, place):
    (base.parent / "another.pt").write_bytes(b"something else")
    monkeypatch.delenv("SAM4EM_BASE", raising=False)
    if place == "beside":
        base.rename(saved.parent / base.name)
    else:
        monkeypatch.setenv("SAM4EM_BASE", str(base if place == "file" else base.parent))
    load_checkpoint(saved)


def test_a_renamed_base_is_found_in_its_folder(saved, base, monkeypatch):
    monkeypatch.setenv("SAM4EM_BASE", str(base.parent))
    renamed = base.rename(base.with_name("renamed.pt"))
    assert find_base(load_checkpoint(saved).header, saved) == renamed


def test_a_missing_base_is_named_with_its_digest(saved, base, monkeypatch):
    monkeypatch.delenv("SAM4EM_BASE", raising=False)
    with pytest.raises(CheckpointError, match=rf"base\.pt \(sha256 {sha256_of(base)}\).*SAM4EM_BASE"):
        load_checkpoint(saved)


def test_another_base_is_refused(saved, base, tmp_path):
    wanted = sha256_of(base)
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"{wanted}.*other\.pt is another file"):
        load_checkpoint(saved, base=tmp_path / "other.pt")


def test_the_record_of_updates_grows_with_every_stage(trained):
    update = merged_updates(trained)["encoder.image_encoder.trunk.blocks.0.attn.qkv.q"]
    assert update.down.shape[0] == update.up.shape[1] == 4


def test_an_exported_model_stands_alone(saved, base, tmp_path, monkeypatch):
    monkeypatch.delenv("SAM4EM_BASE", raising=False)
    out = tmp_path / "out.safetensors"
    export_checkpoint(saved, out, base=base)
    image = torch.rand(1, 2, 64, 64)
    whole, delta = load_checkpoint(out), load_checkpoint(saved, base=base)
    assert whole.header.stored == "whole"
    assert whole.header.base_sha256 == sha256_of(base)
    with torch.no_grad():
        outputs = [m.network.forward_window(image).refined_BTKHW for m in (whole, delta)]
    torch.testing.assert_close(outputs[0], outputs[1], rtol=2e-2, atol=2e-2)


def test_a_delta_is_not_saved_as_whole(trained, base, tiny_header, tmp_path):
    header = tiny_header(trained.config, stored="delta", base_sha256=sha256_of(base))
    with pytest.raises(CheckpointError, match="whole"):
        save_checkpoint(tmp_path / "x.safetensors", trained, header)


SIZES = ["sam2.1_hiera_t", *(pytest.param(f"sam2.1_hiera_{s}", marks=pytest.mark.slow) for s in ("s", "b+", "l"))]


@pytest.mark.parametrize("name", SIZES)
def test_every_official_size_learns_is_saved_small_and_comes_back(name, official_file, tmp_path):
    base = official_file(name, tmp_path / f"{name}.pt")
    config = ModelConfig.official(name)
    network = build_model(config)
    load_official(network, base)
    add_adapter(network, "encoder")
    trainable = [p for p in network.parameters() if p.requires_grad]
    image = torch.rand(1, 2, 64, 64)
    optimizer = torch.optim.AdamW(trainable, lr=1e-3)
    before = network.forward_window(image).refined_BTKHW
    before.square().mean().backward()
    optimizer.step()
    merge_adapters(network)
    with torch.no_grad():
        after = network.eval().forward_window(image).refined_BTKHW
    header = CheckpointHeader(
        model=config,
        classes=("m",),
        thresholds=(0.5,),
        working_voxel_size_zyx_nm=(8.0, 8.0, 8.0),
        accepted_voxel_size_nm=(4.0, 16.0),
        stored="delta",
        base_sha256=sha256_of(base),
        base_name=base.name,
        encoder_origin="official",
    )
    save_delta(tmp_path / "d.safetensors", network, header, base)
    assert (tmp_path / "d.safetensors").stat().st_size <= 32e6
    with torch.no_grad():
        found = load_checkpoint(tmp_path / "d.safetensors", base=base).network.forward_window(image).refined_BTKHW
    assert (after - before.detach()).abs().max() > 10 * (found - after).abs().max()
    torch.testing.assert_close(found, after, rtol=1e-2, atol=1e-2)
