"""Less memory, or less time, for the same network: gradient checkpointing, compilation, attention's kernel, bfloat16.

The first two hang on module objects alone, leave every tensor's name as it is, and are gone in a finished stage's
network.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from sam4em_core.training.errors import TrainingSetupError

if TYPE_CHECKING:
    from sam4em_core.model import Sam4emNet

_MATH_ATTENTION_CROP = 512
"""Up to this crop the attention matrices of global attention are small: 1,024 tokens at a stride of 16."""

_COMPILERS = ("g++", "clang++", "c++", "cl")


def training_attention(
    device: torch.device, crop_voxels: int, *, recomputes: bool = False
) -> AbstractContextManager[None]:
    """Choose the kernel of attention for a forward pass that a backward pass follows.

    On a CPU the backward pass of the fused kernel is slow for windows of a few dozen tokens: with plain products a
    whole training step takes 0.84 to 0.87 of the time (`tests/bench/training_step.py`). Large crops keep the fused
    kernel, which holds no matrix of tokens by tokens.

    Args:
        device: where the network is.
        crop_voxels: side of a window, voxels.
        recomputes: the encoder is computed again in the backward pass, outside of this context: then the fused kernel
            stays, which is also what saves memory.
    """
    if device.type == "cpu" and crop_voxels <= _MATH_ATTENTION_CROP and not recomputes:
        kernel: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return kernel
    return nullcontext()


def forward_precision(dtype: Literal["float32", "bfloat16", "auto"], device: torch.device) -> torch.autocast:
    """Choose the type that a forward pass computes in.

    Args:
        dtype: the config's; `auto` is bfloat16 where the device computes with it. On a processor without it a
            training step takes 6.0 to 6.9 times as long as in float32 (`tests/bench/training_step.py`).
        device: where the network is.
    """
    wanted = dtype == "bfloat16" or (dtype == "auto" and computes_bfloat16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device computes with bfloat16 and does not only emulate it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def recompute_encoder(network: Sam4emNet) -> None:
    """Make every block of the image encoder compute again in the backward pass what it would have kept."""
    for block in network.encoder.image_encoder.trunk.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def keep_encoder(network: Sam4emNet) -> None:
    """Undo `recompute_encoder`."""
    for block in network.encoder.image_encoder.trunk.blocks:
        block.__dict__.pop("forward", None)


def compile_network(network: Sam4emNet, device: torch.device, *, backend: str = "inductor") -> None:
    """Compile encoder and decoders at their first call; the memory, which steps along z, stays as it is.

    Args:
        network: the network, with the adapters of its stage.
        device: where it is.
        backend: what torch.compile hands its graphs to.

    Raises:
        TrainingSetupError: the device is a CPU and the machine has no C++ compiler.
    """
    if device.type == "cpu" and not any(shutil.which(name) for name in _COMPILERS):
        raise TrainingSetupError(
            f"compile: on a CPU this needs a C++ compiler, and none of {', '.join(_COMPILERS)} is on the PATH; install "
            "one, or set training.compile to false"
        )
    if network.sdf_memory is None:
        network.encoder.compile(backend=backend)
    else:
        # Levels and fusion are called apart: the memory lies between them.
        network.encoder.image_encoder.compile(backend=backend)
    network.decoder.compile(backend=backend)
