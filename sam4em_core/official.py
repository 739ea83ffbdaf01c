"""Official SAM2 and SAM2.1 weights as the base of a network.

An official file is a pickle with one entry `model`: a state dict. What goes where:

    image_encoder.*                 -> encoder.image_encoder.*   strictly: every tensor, every shape
    sam_mask_decoder.*              -> decoder.coarse.* and decoder.refined.*, where the shapes agree
    sam_prompt_encoder.pe_layer.*   -> decoder.position.*
    memory_*, obj_ptr_*, ...        -> not used: the 3D memory has parameters of its own
"""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from sam4em_core.checkpoint import different_shapes, shortened
from sam4em_core.errors import ArchitectureMismatch, CheckpointError
from sam4em_core.model import Sam4emNet

_ENCODER = "image_encoder."
_DECODER = "sam_mask_decoder."
_POSITION = "sam_prompt_encoder.pe_layer."


@dataclass(frozen=True)
class OfficialReport:
    """What became of an official file's tensors."""

    loaded: tuple[str, ...]
    """Tensors of the network that were filled."""
    missing: tuple[str, ...]
    """Tensors of the decoders that the file does not have in this shape: they stay random."""
    unexpected: tuple[str, ...]
    """Tensors of the file that have no place in the network."""


def load_official(network: Sam4emNet, path: str | Path) -> OfficialReport:
    """Fill a network's encoder strictly, and its decoders where shapes agree, from an official file.

    Args:
        network: a network with an official backbone; changed in place, `encoder_origin` becomes `official`.
        path: a file such as sam2.1_hiera_tiny.pt.

    Raises:
        CheckpointError: the file is missing, unreadable, or has no `model` entry.
        ArchitectureMismatch: the encoder's tensors are not exactly those of the network's backbone.
    """
    state = read_official(path)
    encoder = _stripped(state, _ENCODER)
    _require_encoder(network, encoder, path)
    network.encoder.image_encoder.load_state_dict(encoder)
    loaded = [f"encoder.image_encoder.{name}" for name in encoder]
    used = {_ENCODER + name for name in encoder}
    missing: list[str] = []
    parts = {
        "decoder.position": (network.decoder.position, _POSITION),
        "decoder.coarse": (network.decoder.coarse, _DECODER),
    }
    if network.decoder.refined is not None:
        parts["decoder.refined"] = (network.decoder.refined, _DECODER)
    for prefix, (module, source) in parts.items():
        filled, left = _fill(module, _stripped(state, source))
        loaded += [f"{prefix}.{name}" for name in filled]
        missing += [f"{prefix}.{name}" for name in left]
        used |= {source + name for name in filled}
    network.encoder_origin = "official"
    return OfficialReport(tuple(loaded), tuple(missing), tuple(sorted(state.keys() - used)))


def read_official(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of an official file, weights only.

    Raises:
        CheckpointError: the file is missing, unreadable, or has no `model` entry.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"reading the official weights {path}: {error}") from error
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"reading the official weights {path}: expected a dict with a state dict under 'model'")
    return state


def _stripped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _require_encoder(network: Sam4emNet, found: dict[str, Tensor], path: str | Path) -> None:
    wanted = network.encoder.image_encoder.state_dict()
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    other = different_shapes(wanted, found)
    if missing or unexpected or other:
        raise ArchitectureMismatch(
            f"loading {path} as {network.config.backbone}: another image encoder: missing {shortened(missing)}; "
            f"unexpected {shortened(unexpected)}; other shape {shortened(other)}"
        )


@torch.no_grad()
def _fill(module: nn.Module, source: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Copy what agrees; mask tokens by rows, since we have one per class. Returns filled and unfilled names."""
    filled, left = [], []
    for name, tensor in module.state_dict().items():
        given = source.get(name)
        if given is not None and name == "mask_tokens.weight":
            given = given[: len(tensor)]
        if given is not None and given.shape == tensor.shape:
            tensor.copy_(given)
            filled.append(name)
        else:
            left.append(name)
    return filled, left
