"""What a network adds to its official base: LoRA factors and new parts, a file of some megabytes.

    stored as                    when
    nothing                      the tensor is the base's own
    LAYER.down, LAYER.up         the weight is the base's plus up @ down (LoRA, kept apart)
    the tensor under its name    it is new, or trained otherwise

The base itself is never copied. Its digest stands in the header and is checked whenever the file is loaded.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sam4em_core.checkpoint import require_merged, write_tensors
from sam4em_core.errors import CheckpointError
from sam4em_core.header import BASE_SUFFIXES, sha256_of
from sam4em_core.lora import LoraUpdate, merged_updates
from sam4em_core.official import official_tensors, read_official

if TYPE_CHECKING:
    from torch import Tensor

    from sam4em_core.header import CheckpointHeader
    from sam4em_core.model import Sam4emNet

BASE_VARIABLE = "SAM4EM_BASE"
"""Environment variable: files or folders where official weights lie, parted as in PATH."""

_DOWN, _UP = ".down", ".up"

# fp32 rounding of base + up @ down; fp16, in which tensors are stored, is a hundred times coarser.
_ROUNDING = 1e-5


def save_delta(path: str | Path, network: Sam4emNet, header: CheckpointHeader, base: str | Path) -> None:
    """Write what a network adds to its base, as fp16, whole or not at all.

    Args:
        path: where to write; the folder must exist.
        network: a network without adapters in place (`lora.merge_adapters` keeps their factors on record).
        header: what to say about it; `stored` is `delta` and `base_sha256` the base's digest.
        base: the official file that the network was filled from.

    Raises:
        CheckpointError: the base is unreadable or another file, the header does not fit, or the disk refuses.
        NonFiniteError: a weight is not finite as fp16.
    """
    if header.model != network.config or header.stored != "delta":
        raise CheckpointError(f"saving {path}: the header describes another network, or not what it adds to a base")
    require_merged(network, path)
    _require_digest(Path(base), header, path)
    given = official_tensors(network, read_official(base), base)
    updates = merged_updates(network)
    kept: dict[str, Tensor] = {}
    for name, tensor in network.state_dict().items():
        of_base = given.get(name)
        layers = [layer for layer in _layers_of(name) if layer in updates]
        if of_base is None:
            kept[name] = tensor
        elif torch.equal(tensor.cpu(), of_base):
            continue
        elif layers and _is_close(tensor.cpu(), updated(of_base, name, updates)):
            for layer in layers:
                kept[layer + _DOWN], kept[layer + _UP] = updates[layer].down, updates[layer].up
        else:
            kept[name] = tensor
    write_tensors(path, kept, header)


def whole_tensors(network: Sam4emNet, stored: dict[str, Tensor], base: Path) -> dict[str, Tensor]:
    """Add what is stored to the base.

    Args:
        network: a network of the checkpoint's architecture, not changed.
        stored: the tensors of a `delta` file.
        base: its official file, digest checked.

    Raises:
        CheckpointError: the base is unreadable.
        ArchitectureMismatch: the base's encoder is not the network's.
    """
    given = official_tensors(network, read_official(base), base)
    layers = {name.removesuffix(_UP) for name in stored if name.endswith(_UP) and _is_factor(name, stored)}
    updates = {layer: LoraUpdate(stored[layer + _DOWN].float(), stored[layer + _UP].float()) for layer in layers}
    factors = {layer + end for layer in layers for end in (_DOWN, _UP)}
    whole = {name: updated(tensor, name, updates) for name, tensor in given.items()}
    return whole | {name: tensor for name, tensor in stored.items() if name not in factors}


def updated(weight: Tensor, name: str, updates: dict[str, LoraUpdate]) -> Tensor:
    """Give a weight of the base with its low-rank updates; those of q, k and v go to their third of a fused `qkv`."""
    layers = _layers_of(name)
    if not any(layer in updates for layer in layers):
        return weight
    whole = weight.clone()
    for part, layer in zip(whole.chunk(len(layers)), layers, strict=True):
        if layer in updates:
            update = updates[layer]
            part.add_(update.up.to(part.device) @ update.down.to(part.device))
    return whole


def find_base(header: CheckpointHeader, path: str | Path, base: str | Path | None = None) -> Path:
    """Find the official weights that a `delta` file needs, and check their digest.

    They are, in this order: `base`; a file of the right name beside the checkpoint; what `SAM4EM_BASE` names, files
    or folders.

    Raises:
        CheckpointError: the base is not there, or is another file; the message names the digest wanted.
    """
    if base is not None:
        _require_digest(Path(base), header, path)
        return Path(base)
    for candidate in _candidates(header, Path(path)):
        if sha256_of(candidate) == header.base_sha256:
            return candidate
    raise CheckpointError(
        f"loading {path}: it adds to the official weights {header.base_name or 'of SAM2'} (sha256 "
        f"{header.base_sha256}), which are not beside it; name that file as the base, or set {BASE_VARIABLE} to it or "
        "to its folder"
    )


def _candidates(header: CheckpointHeader, path: Path) -> list[Path]:
    places = [Path(text) for text in os.environ.get(BASE_VARIABLE, "").split(os.pathsep) if text]
    found = [path.parent / header.base_name] if header.base_name else []
    for place in places:
        if place.is_dir():
            files = sorted(item for item in place.iterdir() if item.suffix in BASE_SUFFIXES)
            found += sorted(files, key=lambda item: item.name != header.base_name)
        else:
            found.append(place)
    return [item for item in found if item.is_file()]


def _require_digest(base: Path, header: CheckpointHeader, path: str | Path) -> None:
    found = sha256_of(base)
    if found != header.base_sha256:
        raise CheckpointError(
            f"{path} stands on official weights with sha256 {header.base_sha256} ({header.base_name}); {base} is "
            f"another file (sha256 {found})"
        )


def _layers_of(name: str) -> tuple[str, ...]:
    """Name the layers whose updates go to one tensor, in the order of its parts."""
    if not name.endswith(".weight"):
        return ()
    layer = name.removesuffix(".weight")
    return tuple(f"{layer}.{part}" for part in "qkv") if layer.endswith(".qkv") else (layer,)


def _is_factor(name: str, stored: dict[str, Tensor]) -> bool:
    return name.removesuffix(_UP) + _DOWN in stored


def _is_close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= _ROUNDING * other.abs().max())
