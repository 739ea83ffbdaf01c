import copy

import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.model import build_model
from sam4em_core.training import speed
from sam4em_core.training.config import StageConfig
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.finetune import finish_stage, prepare_stage
from sam4em_core.training.speed import (
    compile_network,
    computes_bfloat16,
    forward_precision,
    keep_encoder,
    recompute_encoder,
    training_attention,
)


@pytest.fixture
def network(make_config):
    torch.manual_seed(0)
    net = build_model(ModelConfig.of(make_config().model))
    net.encoder_origin = "trained"
    return net


def gradients(network, image):
    network.zero_grad()
    network.forward_window(image).refined_BTKHW.square().mean().backward()
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("recipe", ["pretrain", "lora-encoder"])
def test_recomputing_gives_the_same_gradients(network, recipe):
    image = torch.rand(1, 2, 32, 32)
    prepare_stage(network, StageConfig(name="s", recipe=recipe, steps=1))
    kept = gradients(network, image)
    names = set(network.state_dict())
    recompute_encoder(network)
    recomputed = gradients(network, image)
    assert set(network.state_dict()) == names
    assert kept.keys() == recomputed.keys()
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)


def test_recomputing_keeps_less_for_the_backward_pass(network):
    def stored_bytes():
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            network.forward_window(torch.rand(1, 2, 64, 64)).refined_BTKHW.sum()
        return sum(sizes)

    before = stored_bytes()
    recompute_encoder(network)
    assert stored_bytes() < 0.9 * before
    keep_encoder(network)
    assert stored_bytes() == before


def test_a_copy_computes_with_its_own_weights_and_a_finished_stage_is_plain(network):
    recompute_encoder(network)
    other = copy.deepcopy(network)
    block = other.encoder.image_encoder.trunk.blocks[0]
    assert block.forward.args[0].__self__ is block
    finish_stage(other)
    assert "forward" not in block.__dict__


def test_compiling_on_a_cpu_needs_a_compiler(network, monkeypatch):
    monkeypatch.setattr(speed.shutil, "which", lambda _: None)
    with pytest.raises(TrainingSetupError, match=r"C\+\+ compiler.*training\.compile"):
        compile_network(network, torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_compiled_network_has_the_same_gradients_and_names(network):
    """Traced and differentiated ahead of time; without inductor, whose C++ takes minutes to build on a CPU."""
    image = torch.rand(1, 2, 32, 32)
    prepare_stage(network, StageConfig(name="s", recipe="lora-encoder", steps=1))
    plain, names = gradients(network, image), list(network.state_dict())
    compile_network(network, torch.device("cpu"), backend="aot_eager")
    compiled = gradients(network, image)
    assert compiled.keys() == plain.keys()
    for name, gradient in compiled.items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-3, atol=1e-5)
    assert list(network.state_dict()) == names
    assert network.encoder._compiled_call_impl is not None
    assert copy.deepcopy(network).encoder._compiled_call_impl is None


@pytest.mark.parametrize(("crop", "fused"), [(512, False), (544, True)])
def test_small_crops_on_a_cpu_do_without_the_fused_kernel(crop, fused):
    with training_attention(torch.device("cpu"), crop):
        assert torch.backends.cuda.flash_sdp_enabled() is fused
    assert torch.backends.cuda.flash_sdp_enabled()


def test_an_encoder_that_is_computed_again_keeps_the_fused_kernel():
    with training_attention(torch.device("cpu"), 64, recomputes=True):
        assert torch.backends.cuda.flash_sdp_enabled()


def test_a_gpu_keeps_its_kernels():
    with training_attention(torch.device("cuda"), 64):
        assert torch.backends.cuda.flash_sdp_enabled()


def test_both_kernels_give_the_same_gradient():
    torch.manual_seed(0)
    parts = [torch.randn(2, 3, 17, 8, requires_grad=True) for _ in range(3)]

    def gradients(crop):
        with training_attention(torch.device("cpu"), crop):
            out = torch.nn.functional.scaled_dot_product_attention(*parts)
        return torch.autograd.grad(out.square().sum(), parts)

    for plain, fused in zip(gradients(64), gradients(1024), strict=True):
        torch.testing.assert_close(plain, fused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "native", "expected"),
    [
        ("float32", True, torch.float32),
        ("bfloat16", False, torch.bfloat16),
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_device_computes_with_it(dtype, native, expected, monkeypatch):
    monkeypatch.setattr(speed, "computes_bfloat16", lambda device: native)
    with forward_precision(dtype, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_a_processor_of_avx2_alone_does_not_compute_with_bfloat16():
    native = computes_bfloat16(torch.device("cpu"))
    assert not (native and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"))
