import pytest
import torch

from sam4em_core.errors import CoreConfigError, ImageShapeError
from sam4em_core.memory_sdf import Neighbor
from sam4em_core.neighborhood import MemoryFaults, forward_fields, kept

ROWS = {
    "logits, one way": {"source": "logits", "direction": "lower", "injection": "sigmoid"},
    "sdf, one way": {"direction": "lower"},
    "sdf, both ways, own slice": {"include_own": True},
    "sdf, both ways": {},
}


def inputs(length=6, classes=1, side=32, seed=2):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, length, side, side, generator=generator)
    return image, torch.rand(1, length, classes, side, side, generator=generator) * 2 - 1


def refined(network, image, field, **settings):
    with torch.inference_mode():
        return forward_fields(network, image, field, **settings).refined_BTKHW


def changed_slices(network, at):
    """Slices whose masks change when the field of one slice does."""
    image, field = inputs()
    other = field.clone()
    other[:, at] = other[:, at].flip(-1)
    differs = (refined(network, image, field) != refined(network, image, other)).flatten(2).any(dim=-1)
    return differs[0].nonzero().flatten().tolist()


def test_the_own_slices_field_has_no_influence(tiny_spatial):
    assert changed_slices(tiny_spatial(), 3) == [1, 2, 4, 5]


def test_the_ablations_look_where_they_say(tiny_spatial):
    assert changed_slices(tiny_spatial(memory=ROWS["sdf, one way"]), 3) == [4, 5]
    assert changed_slices(tiny_spatial(memory=ROWS["sdf, both ways, own slice"]), 3) == [1, 2, 3, 4, 5]
    assert changed_slices(tiny_spatial(memory={"stride": 2, "reach": 1}), 3) == [1, 5]


def test_reversed_in_z_is_mirrored_without_the_side_vector(tiny_spatial):
    image, field = inputs()
    network = tiny_spatial(memory={"side_vector": False})
    upside_down = refined(network, image.flip(1), field.flip(1)).flip(1)
    torch.testing.assert_close(refined(network, image, field), upside_down, atol=1e-4, rtol=1e-4)
    network = tiny_spatial()
    with torch.no_grad():
        network.sdf_memory.side.normal_()
    upside_down = refined(network, image.flip(1), field.flip(1)).flip(1)
    assert (refined(network, image, field) - upside_down).abs().max() > 1e-3


@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_ablation_runs_and_its_memory_learns(tiny_spatial, row):
    network = tiny_spatial(memory=ROWS[row]).train()
    image, field = inputs(length=4)
    needs_field = network.config.needs_field
    masks = forward_fields(network, image, field if needs_field else None)
    (masks.refined_BTKHW.square().mean() + masks.coarse_BTKHW.square().mean()).backward()
    for name in ("encoder.pix_feat_proj.weight", "attention.layers.0.cross_attn_image.k_proj.weight", "time_rows"):
        assert network.sdf_memory.get_parameter(name).grad.abs().sum() > 0
    if needs_field:
        assert network.sdf_memory.gain.grad is not None
        assert all(parameter.grad is None for parameter in network.unet.parameters())


def test_the_chain_of_logits_is_one_way_and_goes_on(tiny_spatial):
    network = tiny_spatial(memory=ROWS["logits, one way"])
    image, _ = inputs()
    other = image.clone()
    other[:, 2] = other[:, 2].flip(-1)
    differs = (refined(network, image, None) != refined(network, other, None)).flatten(2).any(dim=-1)[0]
    assert differs.nonzero().flatten().tolist() == [2, 3, 4, 5]


def test_the_field_gets_no_gradient(tiny_spatial):
    image, field = inputs(length=3)
    field.requires_grad_()
    forward_fields(tiny_spatial(), image, field).refined_BTKHW.mean().backward()
    assert field.grad is None


def test_the_encoders_run_once_per_slice(tiny_spatial, monkeypatch):
    network = tiny_spatial()
    counts = {"levels": 0, "entry": 0}
    levels, entry = network.encoder.levels, network.sdf_memory.entry

    def counted_levels(image):
        counts["levels"] += len(image)
        return levels(image)

    def counted_entry(top, field):
        counts["entry"] += len(top)
        return entry(top, field)

    monkeypatch.setattr(network.encoder, "levels", counted_levels)
    monkeypatch.setattr(network.sdf_memory, "entry", counted_entry)
    refined(network, *inputs())
    assert counts == {"levels": 6, "entry": 6}


def test_faults_are_drawn_from_the_generator_alone():
    faults = MemoryFaults(neighbor_dropout=0.5, memory_dropout=0.2)
    neighbors = [Neighbor(offset, torch.zeros(1)) for offset in (-2, -1, 1, 2)]
    draws = [kept(neighbors, faults, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert draws == [kept(neighbors, faults, torch.Generator().manual_seed(seed)) for seed in range(200)]
    assert 40 < sum(not draw for draw in draws) < 90


def test_dropping_the_whole_memory_is_what_a_single_slice_sees(tiny_spatial):
    network = tiny_spatial()
    image, field = inputs()
    alone = refined(network, image[:, 2:3], field[:, 2:3])
    dropped = refined(network, image, field, faults=MemoryFaults(memory_dropout=1.0))
    torch.testing.assert_close(dropped[:, 2:3], alone, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_refused(tiny_spatial, tiny_network):
    image, field = inputs()
    with pytest.raises(ImageShapeError, match="signed distances of a window"):
        forward_fields(tiny_spatial(), image, None)
    with pytest.raises(ImageShapeError, match="signed distances of a window"):
        forward_fields(tiny_spatial(), image, field[:, 1:])
    with pytest.raises(ImageShapeError, match="squares only"):
        forward_fields(tiny_spatial(), torch.rand(1, 2, 32, 64), torch.rand(1, 2, 1, 32, 64))
    with pytest.raises(CoreConfigError, match="memory: volume"):
        forward_fields(tiny_network(), image, field)
    with pytest.raises(CoreConfigError, match="neighbors"):
        tiny_spatial().forward_window(image)
