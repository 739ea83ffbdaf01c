import pytest
import torch
from sam2.modeling.position_encoding import apply_rotary_enc, compute_axial_cis

from sam4em_core.config import ModelConfig
from sam4em_core.errors import ImageShapeError
from sam4em_core.memory_sdf import Neighbor, SdfMemory


def memory_and_inputs(tiny_spatial, **settings):
    network = tiny_spatial(**settings)
    torch.manual_seed(1)
    classes = network.config.num_classes
    return network.sdf_memory, torch.randn(2, 64, 2, 2), torch.rand(2, classes, 32, 32) * 2 - 1


def test_the_field_reaches_the_memory_encoder_without_a_sigmoid(tiny_spatial, monkeypatch):
    memory, top, field = memory_and_inputs(tiny_spatial)
    seen = []
    downsample = memory.encoder.mask_downsampler.forward
    monkeypatch.setattr(memory.encoder.mask_downsampler, "forward", lambda x: (seen.append(x), downsample(x))[1])
    memory.entry(top, field * 3)
    torch.testing.assert_close(seen[0], 10 * (field * 3).clamp(-1, 1))
    assert memory.gain.requires_grad


def test_the_ablation_goes_through_sam2s_sigmoid(tiny_spatial):
    memory, _, field = memory_and_inputs(tiny_spatial, memory={"injection": "sigmoid"})
    torch.testing.assert_close(memory._injected(field), 20 * torch.sigmoid(10 * field) - 10)


def test_an_empty_slice_is_marked(tiny_spatial):
    memory, top, field = memory_and_inputs(tiny_spatial)
    field[1] = -field[1].abs()
    before = memory.entry(top, field)
    with torch.no_grad():
        memory.nothing_here.add_(1.0)
    after = memory.entry(top, field)
    assert torch.equal(before[0], after[0])
    torch.testing.assert_close(after[1], before[1] + 1)


def test_classes_are_told_apart(tiny_spatial):
    memory, top, field = memory_and_inputs(tiny_spatial, classes=2)
    assert memory.class_gain.shape == (2, 32)
    assert not torch.allclose(memory.entry(top, field), memory.entry(top, field.flip(1)), atol=1e-2)


def test_distances_in_z_are_rows_and_sides_differ_by_a_vector_that_starts_at_zero(tiny_spatial):
    memory, top, field = memory_and_inputs(tiny_spatial)
    entry = memory.entry(top, field)
    assert (memory.side == 0).all()

    def read(offset):
        return memory.read(top, [Neighbor(offset, entry), Neighbor(-2, entry * 0.5)])

    assert torch.equal(read(1), read(-1))
    assert not torch.allclose(read(1), read(2), atol=1e-4)
    with torch.no_grad():
        memory.side.add_(torch.randn(32))
    assert not torch.allclose(read(1), read(-1), atol=1e-4)
    assert torch.equal(memory._time(0), memory.time_rows[-1])


def test_without_neighbors_sam2s_no_memory_vector_is_added(tiny_spatial):
    memory, top, _ = memory_and_inputs(tiny_spatial)
    mean, deviation = top.mean(1, keepdim=True), top.std(1, keepdim=True, correction=0)
    expected = ((top - mean) / deviation + memory.no_memory.view(1, -1, 1, 1)) * deviation + mean
    torch.testing.assert_close(memory.read(top, []), expected, rtol=1e-3, atol=1e-3)


def test_a_mask_weighs_the_same_beside_features_of_any_scale(tiny_spatial):
    memory, top, field = memory_and_inputs(tiny_spatial)
    entry = memory.entry(top, field)
    torch.testing.assert_close(memory.entry(40 * top + 3, field), entry, rtol=1e-3, atol=1e-3)
    # What is read is as large as what it was added to.
    small, large = (memory.read(scale * top, [Neighbor(-1, entry)]) for scale in (1, 40))
    torch.testing.assert_close(large, 40 * small, rtol=1e-3, atol=1e-2)


def test_official_features_keep_the_scale_that_their_memory_was_trained_for():
    memory = SdfMemory(ModelConfig.official("sam2.1_hiera_t", memory="sdf", unet={})).eval()
    top = 3 * torch.randn(1, 256, 2, 2)
    torch.testing.assert_close(memory.read(top, []), top + memory.no_memory.view(1, -1, 1, 1))


@pytest.mark.parametrize("d_model", [64, 128])
def test_an_untrained_memory_looks_straight_across(d_model):
    torch.manual_seed(5)
    config = ModelConfig.of({"memory": "sdf", "unet": {}, "d_model": d_model, "decoder_heads": 1})
    attention = SdfMemory(config).attention.layers[0].cross_attn_image
    queries, keys = attention.q_proj(torch.randn(1, 64, d_model)), attention.k_proj(torch.randn(1, 64, 64))
    turns = compute_axial_cis(dim=d_model, end_x=8, end_y=8)
    queries, keys = apply_rotary_enc(queries[:, None], keys[:, None], turns)
    weights = (queries @ keys.transpose(-1, -2) / d_model**0.5).softmax(-1)[0, 0].detach().view(8, 8, 8, 8)
    near = 0.0
    for y in range(8):
        for x in range(8):
            near += float(weights[y, x, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].sum()) / 64
    # Of 64 places, the nine around the own one.
    assert near > 0.95


def test_anything_but_a_square_is_refused(tiny_spatial):
    memory, _, _ = memory_and_inputs(tiny_spatial)
    top, field = torch.randn(1, 64, 2, 4), torch.zeros(1, 1, 32, 64)
    with pytest.raises(ImageShapeError, match="squares only"):
        memory.entry(top, field)
    with pytest.raises(ImageShapeError, match="squares only"):
        memory.read(top, [])


def test_six_neighbors_have_the_tensors_of_sam2(tiny_config):
    from sam2.build_sam import build_sam2

    official = build_sam2("configs/sam2.1/sam2.1_hiera_t.yaml", device="cpu", apply_postprocessing=False)
    ours = SdfMemory(ModelConfig.official("sam2.1_hiera_t", memory="sdf", unet={}))
    for part, theirs in (("attention", official.memory_attention), ("encoder", official.memory_encoder)):
        shapes = {name: tensor.shape for name, tensor in getattr(ours, part).state_dict().items()}
        assert shapes == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert ours.time_rows.shape == official.maskmem_tpos_enc.shape
    assert ours.no_memory.shape == official.no_mem_embed.shape
    assert ours.nothing_here.shape == official.no_obj_embed_spatial.shape
