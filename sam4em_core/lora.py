"""LoRA on q and v, with stock peft.

    fused qkv  --split-->  q | k | v  --peft-->  q + BA | k | v + BA  --merge-->  q | k | v  --fuse-->  fused qkv

SAM2's Hiera keeps q, k and v in one Linear, d to 3 * d_out; in the stage-transition blocks d_out is 2 * d, so that the
parts must be sized by the output. peft on the fused layer would adapt k too.
Two named adapters: `encoder` (every Hiera block) and `decoder` (the refined decoder's q_proj and v_proj).
Source: Hu et al. 2021, LoRA.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from sam2.modeling.backbones.hieradet import MultiScaleAttention
from torch import Tensor, nn

from sam4em_core.errors import CoreConfigError
from sam4em_core.model import Sam4emNet

AdapterName = Literal["encoder", "decoder"]

_LORA_MARK = "lora_"
_RECORD = "merged_lora_updates"


@dataclass(frozen=True)
class LoraUpdate:
    """A low-rank update of one weight: weight + up @ down."""

    down: Tensor
    """(rank, inputs)."""
    up: Tensor
    """(outputs, rank), with the adapter's scale in it."""


class SplitQkv(nn.Module):
    """Three Linears that compute what one fused `qkv` Linear computes, bit for bit."""

    def __init__(self, fused: nn.Linear) -> None:
        super().__init__()
        width = fused.out_features // 3
        weights = fused.weight.detach().split(width)
        biases = fused.bias.detach().split(width)
        self.q, self.k, self.v = (_linear(w, b) for w, b in zip(weights, biases, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Concatenated q, k, v along the last axis."""
        return torch.cat((self.q(x), self.k(x), self.v(x)), dim=-1)

    def fused(self) -> nn.Linear:
        """One Linear with the three weights stacked."""
        parts = (self.q, self.k, self.v)
        return _linear(torch.cat([p.weight.detach() for p in parts]), torch.cat([p.bias.detach() for p in parts]))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    return layer


def split_qkv(network: nn.Module) -> int:
    """Split every fused `qkv` in place; returns how many were split."""
    attentions = [m for m in network.modules() if isinstance(m, MultiScaleAttention) and isinstance(m.qkv, nn.Linear)]
    for attention in attentions:
        attention.qkv = SplitQkv(attention.qkv)
    return len(attentions)


def fuse_qkv(network: nn.Module) -> int:
    """Undo `split_qkv` in place; returns how many were fused.

    Raises:
        CoreConfigError: adapters are still in place; `merge_adapters` first.
    """
    if has_adapters(network):
        raise CoreConfigError("fusing q, k and v: LoRA adapters are still in place; merge them first")
    attentions = [m for m in network.modules() if isinstance(m, MultiScaleAttention) and isinstance(m.qkv, SplitQkv)]
    for attention in attentions:
        attention.qkv = attention.qkv.fused()
    return len(attentions)


def add_adapter(
    network: Sam4emNet, which: AdapterName, *, rank: int | None = None, alpha: int | None = None
) -> tuple[str, ...]:
    """Add LoRA to q and v in place. Everything but the adapters is frozen; the caller thaws what else should train.

    Args:
        network: a network whose encoder is not random.
        which: `encoder` or `decoder`.
        rank: rank of the update; default: the network's config.
        alpha: scale numerator of the update; default: the network's config.

    Returns:
        The names of the adapted layers.

    Raises:
        CoreConfigError: the encoder's weights are random, or the adapter is there already.
    """
    from peft import LoraConfig, inject_adapter_in_model  # noqa: PLC0415 - workers must never import peft

    if network.encoder_origin == "random":
        raise CoreConfigError(
            f"adding the LoRA adapter {which!r}: the encoder has random weights, and LoRA on a frozen random encoder "
            "learns nothing; pre-train it (all parameters) or load an official or own checkpoint first"
        )
    if any(which in getattr(layer, "lora_A", {}) for layer in network.modules()):
        raise CoreConfigError(f"adding the LoRA adapter {which!r}: it is there already")
    split_qkv(network.encoder)
    settings = LoraConfig(
        r=rank or network.config.lora_rank,
        lora_alpha=alpha or network.config.lora_alpha,
        target_modules=_targets(network, which),
        bias="none",
    )
    inject_adapter_in_model(settings, network, adapter_name=which)
    # peft leaves this mark and warns about it when the second adapter comes; nothing of ours reads it.
    if hasattr(network, "peft_config"):
        del network.peft_config
    return _activate_all(network, which)


def _targets(network: Sam4emNet, which: AdapterName) -> str:
    if which == "encoder":
        return r"encoder\.image_encoder\..*attn\.qkv\.(q|v)"
    decoder = "coarse" if network.decoder.refined is None else "refined"
    return rf"decoder\.{decoder}\..*\.(q_proj|v_proj)"


def _activate_all(network: nn.Module, added: str) -> tuple[str, ...]:
    """Switch on every adapter (peft leaves only the last one active); name the layers that carry the added one."""
    names = []
    for name, layer in _adapted_layers(network):
        layer.set_adapter(list(layer.lora_A))
        if added in layer.lora_A:
            names.append(name)
    return tuple(names)


def _adapted_layers(network: nn.Module) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in network.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]


def _record(network: nn.Module, name: str, layer: Any, adapter: str) -> None:
    """Add one adapter's factors to the network's record, behind those of earlier stages."""
    down = layer.lora_A[adapter].weight.detach().clone()
    up = layer.lora_B[adapter].weight.detach() * layer.scaling[adapter]
    earlier = merged_updates(network).get(name)
    if earlier is not None:
        device = down.device
        down = torch.cat([earlier.down.to(device), down])
        up = torch.cat([earlier.up.to(device), up], dim=1)
    set_merged_updates(network, {**merged_updates(network), name: LoraUpdate(down, up)})


def merged_updates(network: nn.Module) -> dict[str, LoraUpdate]:
    """Give every update that `merge_adapters` added to a weight so far, by layer; q, k and v under their own names."""
    updates: dict[str, LoraUpdate] = network.__dict__.get(_RECORD, {})
    return updates


def set_merged_updates(network: nn.Module, updates: dict[str, LoraUpdate]) -> None:
    """Replace the record of merged updates, as when a run is resumed; the weights are not touched."""
    network.__dict__[_RECORD] = updates


def has_adapters(network: nn.Module) -> bool:
    """Whether LoRA adapters are in place."""
    return any(_LORA_MARK in name for name, _ in network.named_parameters())


def merge_adapters(network: nn.Module) -> int:
    """Add every adapter's update to its weight, remove the adapters and fuse qkv: official keys again, in place.

    What was added stays on record (`merged_updates`), so that it can be stored apart from the weights.

    Returns:
        Number of layers that were merged.
    """
    layers = _adapted_layers(network)
    for name, layer in layers:
        for adapter in layer.lora_A:
            _record(network, name, layer, adapter)
        layer.merge(safe_merge=True)
        parent_name, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent_name), child, layer.get_base_layer())
    fuse_qkv(network)
    return len(layers)
