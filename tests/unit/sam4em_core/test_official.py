import pytest
import torch

from sam4em_core.config import OFFICIAL_BACKBONES, ModelConfig
from sam4em_core.errors import ArchitectureMismatch, CheckpointError
from sam4em_core.lora import add_adapter
from sam4em_core.model import build_model
from sam4em_core.official import load_official, read_official


def _check(name, path):
    network = build_model(ModelConfig.official(name, num_classes=2))
    report = load_official(network, path)
    state = read_official(path)
    assert network.encoder_origin == "official"
    for key, tensor in network.encoder.image_encoder.state_dict().items():
        assert torch.equal(tensor, state[f"image_encoder.{key}"])
    for key in ("transformer.layers.1.mlp.layers.0.weight", "output_upscaling.3.weight"):
        assert torch.equal(network.decoder.coarse.state_dict()[key], state[f"sam_mask_decoder.{key}"])
        assert torch.equal(network.decoder.refined.state_dict()[key], state[f"sam_mask_decoder.{key}"])
    assert torch.equal(network.decoder.coarse.mask_tokens.weight, state["sam_mask_decoder.mask_tokens.weight"][:2])
    assert report.missing == ("decoder.coarse.class_bias", "decoder.refined.class_bias")
    assert "sam_mask_decoder.conv_s0.weight" in report.unexpected
    assert not [key for key in report.unexpected if key.startswith("image_encoder.")]
    return network


def test_tiny_loads_and_learns_with_lora(official_file, tmp_path):
    network = _check("sam2.1_hiera_t", official_file("sam2.1_hiera_t", tmp_path / "official.pt"))
    add_adapter(network, "encoder", rank=2)
    out = network.forward_window(torch.rand(1, 2, 64, 64))
    out.refined_BTKHW.square().mean().backward()
    assert any("lora_B" in name and p.grad.abs().max() > 0 for name, p in network.named_parameters() if p.requires_grad)


def test_the_memory_of_signed_distances_takes_over_sam2s_own(official_file, tmp_path):
    path = official_file("sam2.1_hiera_t", tmp_path / "official.pt")
    network = build_model(ModelConfig.official("sam2.1_hiera_t", memory="sdf", unet={}))
    report = load_official(network, path)
    state, memory = read_official(path), network.sdf_memory
    assert torch.equal(memory.time_rows, state["maskmem_tpos_enc"])
    assert torch.equal(memory._time(-3), state["maskmem_tpos_enc"][2])
    assert torch.equal(memory.nothing_here, state["no_obj_embed_spatial"])
    assert torch.equal(memory.no_memory, state["no_mem_embed"])
    for part in ("attention", "encoder"):
        for key, tensor in getattr(memory, part).state_dict().items():
            assert torch.equal(tensor, state[f"memory_{part}.{key}"])
    assert not [key for key in report.unexpected if key.startswith(("memory_", "maskmem"))]
    assert not [key for key in report.missing if key.startswith("sdf_memory")]
    two = build_model(ModelConfig.official("sam2.1_hiera_t", num_classes=2, memory="sdf", unet={"num_classes": 2}))
    load_official(two, path)
    level, field = torch.rand(1, 256, 4, 4), torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        seen = two.sdf_memory.entry(level, field.expand(-1, 2, -1, -1))
        torch.testing.assert_close(seen, memory.entry(level, field))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OFFICIAL_BACKBONES if name != "sam2.1_hiera_t"])
def test_every_size_loads(name, official_file, tmp_path):
    _check(name, official_file(name, tmp_path / "official.pt"))


def test_another_size_is_refused(tmp_path, tiny_network):
    path = tmp_path / "w.pt"
    torch.save({"model": {"image_encoder.trunk.pos_embed": torch.zeros(1, 96, 7, 7)}}, path)
    with pytest.raises(ArchitectureMismatch, match=r"missing neck.*other shape trunk.pos_embed \(1, 96, 7, 7\)"):
        load_official(tiny_network(), path)


@pytest.mark.parametrize("content", [{"state": {}}, {"model": [1, 2]}, [3]])
def test_other_layouts_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="under 'model'"):
        read_official(tmp_path / "w.pt")


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="reading the official weights"):
        read_official(tmp_path / "missing.pt")
    (tmp_path / "w.pt").write_bytes(b"not a pickle")
    with pytest.raises(CheckpointError, match="reading the official weights"):
        read_official(tmp_path / "w.pt")


class _Evil:
    def __reduce__(self):
        return (print, ("code ran",))


def test_a_pickle_with_code_is_refused(tmp_path, capsys):
    torch.save({"model": {"a": _Evil()}}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="reading the official weights"):
        read_official(tmp_path / "w.pt")
    assert "code ran" not in capsys.readouterr().out
