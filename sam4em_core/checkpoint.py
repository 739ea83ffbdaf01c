"""Checkpoints: one safetensors file, fp16 tensors, merged weights, and a header that says what they are.

A network that stands on official weights is stored as what it adds to them: see `delta`.

Torch is imported inside the functions: `read_checkpoint_header` must work where there is none. peft is never imported.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam4em_core.errors import ArchitectureMismatch, CheckpointError, NonFiniteError
from sam4em_core.header import (
    METADATA_KEY,
    UNET_METADATA_KEY,
    CheckpointHeader,
    UnetHeader,
    read_checkpoint_header,
    read_unet_header,
    sha256_of,
)

if TYPE_CHECKING:
    from torch import Tensor

    from sam4em_core.model import Sam4emNet
    from sam4em_core.unet3d import UNet3d

__all__ = [
    "CheckpointHeader",
    "LoadedModel",
    "load_checkpoint",
    "load_unet",
    "read_checkpoint_header",
    "save_checkpoint",
    "save_unet",
    "sha256_of",
]


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode and the header that came with it."""

    network: Sam4emNet
    """The network, fp32."""
    header: CheckpointHeader
    """What the file says about it."""


def save_checkpoint(path: str | Path, network: Sam4emNet, header: CheckpointHeader) -> None:
    """Write a network as fp16, whole or not at all: a file that was there stays until the new one is complete.

    Args:
        path: where to write; the folder must exist.
        network: a network without LoRA adapters (`lora.merge_adapters` first).
        header: what to say about it; `model` must be the network's config.

    Raises:
        CheckpointError: the header belongs to another network, adapters are in place, or the disk refuses.
        NonFiniteError: a weight is not finite as fp16.
    """
    if header.model != network.config:
        raise CheckpointError(f"saving {path}: the header describes another architecture than the network's")
    if header.stored != "whole":
        raise CheckpointError(f"saving {path}: the header says {header.stored!r}, a whole network is {'whole'!r}")
    require_merged(network, path)
    write_tensors(path, network.state_dict(), header)


def save_unet(path: str | Path, network: UNet3d, header: UnetHeader) -> None:
    """Write a U-Net as fp16, whole or not at all.

    Raises:
        CheckpointError: the header belongs to another network, or the disk refuses.
        NonFiniteError: a weight is not finite as fp16.
    """
    if header.unet != network.config:
        raise CheckpointError(f"saving {path}: the header describes another architecture than the network's")
    write_tensors(path, network.state_dict(), header)


def require_merged(network: Sam4emNet, path: str | Path) -> None:
    """Refuse a network whose adapters are in place.

    Raises:
        CheckpointError: adapters are in place, or q, k and v are split.
    """
    for name in network.state_dict():
        if "lora_" in name or ".qkv.q." in name:
            raise CheckpointError(f"saving {path}: found the unmerged tensor {name}; merge the LoRA adapters first")


def write_tensors(path: str | Path, tensors: dict[str, Tensor], header: CheckpointHeader | UnetHeader) -> None:
    """Write tensors as fp16 under a header, whole or not at all.

    Raises:
        CheckpointError: the disk refuses.
        NonFiniteError: a weight is not finite as fp16.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - imports torch

    target = Path(path)
    part = target.with_name(target.name + ".part")
    halves = _as_halves(tensors, path)
    key = METADATA_KEY if isinstance(header, CheckpointHeader) else UNET_METADATA_KEY
    try:
        part.touch()
        readers = part.stat().st_mode
        save_file(halves, part, metadata={key: header.to_json()})
        # safetensors lets nobody but the writer read it; workers may run as another user.
        part.chmod(readers)
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(target)
    except Exception as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise CheckpointError(f"saving {path}: {error}; the file that was there is unchanged") from error
        raise


def _as_halves(tensors: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    import torch  # noqa: PLC0415

    stored = {}
    for name, tensor in tensors.items():
        half = tensor.detach().to("cpu", torch.float16 if tensor.is_floating_point() else tensor.dtype).contiguous()
        if half.is_floating_point() and not bool(torch.isfinite(half).all()):
            raise NonFiniteError(f"saving {path}: tensor {name} is not finite as fp16")
        stored[name] = half.clone()
    return stored


def load_checkpoint(path: str | Path, device: str = "cpu", *, base: str | Path | None = None) -> LoadedModel:
    """Build the network that a checkpoint describes and load it strictly, as fp32, in eval mode.

    Args:
        path: a safetensors file of ours.
        device: where the network is put.
        base: the official weights that a `delta` adds to; by default they are looked for (`delta.find_base`).

    Raises:
        CheckpointError: the file is missing, truncated, or not a checkpoint of ours; or its base is.
        ArchitectureMismatch: tensors are missing, unexpected, or of another shape; the message lists them.
    """
    from sam4em_core.model import build_model  # noqa: PLC0415

    header = read_checkpoint_header(path)
    tensors = _read_tensors(path)
    network = build_model(header.model)
    if header.stored == "delta":
        from sam4em_core.delta import find_base, whole_tensors  # noqa: PLC0415

        tensors = whole_tensors(network, tensors, find_base(header, path, base))
    _require_same(network.state_dict(), tensors, path)
    network.load_state_dict(tensors)
    network.encoder_origin = header.encoder_origin
    return LoadedModel(network.to(device).eval(), header)


def load_unet(path: str | Path, device: str = "cpu") -> tuple[UNet3d, UnetHeader]:
    """Build the U-Net that a checkpoint describes and load it strictly, as fp32, in eval mode.

    Raises:
        CheckpointError: the file is missing, truncated, or holds no U-Net of ours.
        ArchitectureMismatch: tensors are missing, unexpected, or of another shape; the message lists them.
    """
    from sam4em_core.unet3d import build_unet  # noqa: PLC0415 - imports torch

    header = read_unet_header(path)
    tensors = _read_tensors(path)
    network = build_unet(header.unet)
    _require_same(network.state_dict(), tensors, path)
    network.load_state_dict(tensors)
    network.encoder_origin = "trained"
    return network.to(device).eval(), header


def _read_tensors(path: str | Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"reading {path}: the tensors are unreadable ({error}); fetch the file again") from error


def _require_same(wanted: dict[str, Tensor], found: dict[str, Tensor], path: str | Path) -> None:
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    other = different_shapes(wanted, found)
    if missing or unexpected or other:
        raise ArchitectureMismatch(
            f"loading {path}: the weights belong to another network: missing {shortened(missing)}; "
            f"unexpected {shortened(unexpected)}; other shape {shortened(other)}"
        )


def different_shapes(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """Name the tensors that both have in different shapes."""
    return [
        f"{name} {tuple(found[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in sorted(wanted.keys() & found.keys())
        if wanted[name].shape != found[name].shape
    ]


def shortened(names: list[str], limit: int = 8) -> str:
    """Some names and how many more there are."""
    if not names:
        return "none"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
