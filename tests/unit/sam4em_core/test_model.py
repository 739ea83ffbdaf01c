import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.errors import ImageShapeError
from sam4em_core.model import build_model, count_parameters, misplaced


@pytest.mark.parametrize(
    "changes", [{}, {"memory": "none"}, {"two_stage": False}, {"num_classes": 3, "memory_layers": 2}]
)
def test_every_parameter_learns(tiny_network, changes):
    network = tiny_network(**changes).train()
    out = network.forward_window(torch.rand(2, 3, 64, 64))
    classes = changes.get("num_classes", 1)
    assert out.coarse_BTKHW.shape == out.refined_BTKHW.shape == (2, 3, classes, 64, 64)
    (out.coarse_BTKHW.square().mean() + out.refined_BTKHW.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


def test_window_equals_steps(tiny_network):
    network = tiny_network()
    images = torch.rand(2, 4, 64, 64)
    with torch.inference_mode():
        window = network.forward_window(images)
        state = network.initial_state(2, 64, 64)
        for t in range(4):
            out = network.step(network.encode(images[:, t, None]), state)
            state = out.state
            torch.testing.assert_close(out.refined_logits_BKHW, window.refined_BTKHW[:, t], rtol=1e-4, atol=1e-4)


def test_state_carries_a_window_over_into_the_next(tiny_network):
    network = tiny_network()
    images = torch.rand(1, 6, 64, 64)
    with torch.inference_mode():
        whole = network.forward_window(images)
        first = network.forward_window(images[:, :2])
        second = network.forward_window(images[:, 2:], state=first.state)
        alone = network.forward_window(images[:, 2:])
    torch.testing.assert_close(second.refined_BTKHW, whole.refined_BTKHW[:, 2:], rtol=1e-4, atol=1e-4)
    assert (alone.refined_BTKHW - second.refined_BTKHW).abs().max() > 1e-3


def test_streams_do_not_see_each_other(tiny_network):
    network = tiny_network()
    images = torch.rand(2, 4, 64, 64)
    other = images.clone()
    other[1] = 0.5
    with torch.inference_mode():
        a, b = network.forward_window(images), network.forward_window(other)
    assert torch.equal(a.refined_BTKHW[0], b.refined_BTKHW[0])


def test_without_memory_a_slice_stands_alone(tiny_network):
    network = tiny_network(memory="none")
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        there = network.forward_window(images).refined_BTKHW
        back = network.forward_window(images.flip(1)).refined_BTKHW.flip(1)
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("truncate_every", "reaches"), [(1, False), (2, False), (3, True), (0, True)])
def test_gradient_is_cut_where_asked(tiny_network, truncate_every, reaches):
    """The last of three slices reaches the first one through the state unless it was cut between them."""
    network = tiny_network()
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    network.forward_window(images, truncate_every=truncate_every).refined_BTKHW[:, 2].sum().backward()
    assert bool(images.grad[0, 0].abs().max() > 0) == reaches


def test_dropout_is_drawn_from_the_generator(tiny_network):
    network = tiny_network()
    images = torch.rand(2, 5, 64, 64)

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        return network.forward_window(images, prompt_dropout=0.5, memory_dropout=0.5, generator=generator).refined_BTKHW

    with torch.inference_mode():
        assert torch.equal(run(1), run(1))
        assert not torch.equal(run(1), run(2))


def test_hidden_prompt_and_memory_equal_a_fresh_start(tiny_network):
    network = tiny_network()
    images = torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        used = network.forward_window(torch.rand(2, 4, 64, 64)).state
        features = network.encode(images)
        hide = torch.ones(2, dtype=torch.bool)
        hidden = network.step(features, used, prompt_drop=hide, memory_drop=hide).refined_logits_BKHW
        fresh = network.step(features, network.initial_state(2, 64, 64)).refined_logits_BKHW
        seen = network.step(features, used).refined_logits_BKHW
    assert torch.equal(hidden, fresh)
    assert not torch.allclose(seen, fresh, atol=1e-4)


def test_wrong_rank_is_refused(tiny_network):
    with pytest.raises(ImageShapeError, match="streams, slices, height, width"):
        tiny_network().forward_window(torch.rand(3, 64, 64))


def test_default_model_fits_its_budget():
    parameters = count_parameters(build_model(ModelConfig()))
    assert 5_000_000 <= parameters <= 8_000_000
    assert 2 * parameters <= 16_000_000


def test_a_mask_fault_changes_what_is_remembered_and_nothing_else(tiny_network):
    network = tiny_network()
    images = torch.rand(2, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        clean = network.forward_window(images)
        always = network.forward_window(images, mask_faults=1.0)
    assert torch.equal(clean.refined_BTKHW[:, 0], always.refined_BTKHW[:, 0])
    assert not torch.equal(clean.refined_BTKHW[:, 1], always.refined_BTKHW[:, 1])


def test_a_misplaced_mask_holds_the_same_objects_elsewhere():
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 1, 2] = 1
    moved = misplaced(mask)
    assert moved.sum() == 1
    assert moved[0, 0, 5, 6] == 1
