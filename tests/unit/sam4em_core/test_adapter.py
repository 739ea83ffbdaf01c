import torch

from sam4em_core.adapter import MaskPrompt, PromptAdapter


def test_class_tokens_come_from_the_image(tiny_config):
    adapter = PromptAdapter(tiny_config(num_classes=3))
    one, other = torch.randn(1, 64, 16, 16), torch.randn(1, 64, 16, 16)
    assert adapter.class_tokens(one).shape == (1, 3, 64)
    assert not torch.allclose(adapter.class_tokens(one), adapter.class_tokens(other))


def test_dense_prompt_is_chosen_per_stream(tiny_config):
    adapter = PromptAdapter(tiny_config())
    torch.nn.init.constant_(adapter.no_mask_yet, 2.0)
    previous = torch.randn(2, 64, 8, 8)
    dense = adapter.dense_prompt(previous, torch.tensor([True, False]))
    assert torch.equal(dense[0], previous[0])
    assert dense[1].unique().tolist() == [2.0]


def test_mask_prompt_takes_every_class_and_is_differentiable(tiny_config):
    prompt = MaskPrompt(tiny_config(num_classes=3))
    masks = torch.rand(2, 3, 32, 32, requires_grad=True)
    dense = prompt(masks)
    assert dense.shape == (2, 64, 8, 8)
    dense.square().sum().backward()
    assert bool((masks.grad.abs().amax(dim=(0, 2, 3)) > 0).all())
