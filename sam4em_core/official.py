"""Official SAM2 and SAM2.1 weights as the base of a network.

An official file is a pickle with one entry `model`: a state dict. What goes where:

    image_encoder.*                 -> encoder.image_encoder.*   strictly: every tensor, every shape
    sam_mask_decoder.*              -> decoder.coarse.* and decoder.refined.*, where the shapes agree
    sam_prompt_encoder.pe_layer.*   -> decoder.position.*
    memory_attention.*, ...         -> sdf_memory.*, with memory: sdf, where the shapes agree: neighbors |dz| = 1 to 6
                                       slices away have one temporal row each, the last row is the own slice's
    obj_ptr_*, ...                  -> not used; nor is any memory with memory: volume, which has parameters of its own
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
_MEMORY_ATTENTION = "memory_attention."
_MEMORY_ENCODER = "memory_encoder."

# Source: sam2 1.1.0, sam2_base.py: single parameters of the memory.
_MEMORY_ROWS = {
    "sdf_memory.time_rows": "maskmem_tpos_enc",
    "sdf_memory.nothing_here": "no_obj_embed_spatial",
    "sdf_memory.no_memory": "no_mem_embed",
}

# Source: sam2 1.1.0, configs/sam2.1: embed_dim and the sum of stages.
_SIZES = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}


@dataclass(frozen=True)
class OfficialReport:
    """What became of an official file's tensors."""

    loaded: tuple[str, ...]
    """Tensors of the network that were filled."""
    missing: tuple[str, ...]
    """Tensors of decoders and memory that the file does not have in this shape: they stay random."""
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
    given = official_tensors(network, state, path)
    network.load_state_dict(given, strict=False)
    if network.sdf_memory is not None and network.config.num_classes > 1:
        # SAM2 remembers one object at a time: what it sees of several classes begins as their mean.
        nn.init.ones_(network.sdf_memory.class_gain)
    network.encoder_origin = "official"
    parts = tuple(f"{prefix}." for prefix in _decoder_sources(network))
    missing = [
        name for name in network.state_dict() if (name.startswith(parts) or name in _MEMORY_ROWS) and name not in given
    ]
    used = {_official_name(network, name) for name in given}
    return OfficialReport(tuple(given), tuple(missing), tuple(sorted(state.keys() - used)))


def official_tensors(network: Sam4emNet, state: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Give what an official state dict holds for a network, under the network's names.

    Args:
        network: a network with an official backbone; not changed.
        state: what `read_official` gave.
        path: the file, for messages.

    Raises:
        ArchitectureMismatch: the encoder's tensors are not exactly those of the network's backbone.
    """
    encoder = _stripped(state, _ENCODER)
    _require_encoder(network, encoder, path)
    given = {f"encoder.{_ENCODER}{name}": tensor for name, tensor in encoder.items()}
    wanted = network.state_dict()
    for prefix, source in _decoder_sources(network).items():
        for name, tensor in _stripped(state, source).items():
            own = f"{prefix}.{name}"
            # SAM2 has four mask tokens, we have one per class.
            cut = tensor[: len(wanted[own])] if name == "mask_tokens.weight" and own in wanted else tensor
            if own in wanted and wanted[own].shape == cut.shape:
                given[own] = cut
    for own, name in _MEMORY_ROWS.items():
        if own in wanted and name in state and wanted[own].shape == state[name].shape:
            given[own] = state[name]
    return given


def _decoder_sources(network: Sam4emNet) -> dict[str, str]:
    """Where each part of the decoders finds its tensors: our prefix -> the official prefix."""
    sources = {"decoder.position": _POSITION, "decoder.coarse": _DECODER}
    if network.decoder.refined is not None:
        sources["decoder.refined"] = _DECODER
    if network.sdf_memory is not None:
        sources["sdf_memory.attention"] = _MEMORY_ATTENTION
        sources["sdf_memory.encoder"] = _MEMORY_ENCODER
    return sources


def _official_name(network: Sam4emNet, name: str) -> str:
    if name in _MEMORY_ROWS:
        return _MEMORY_ROWS[name]
    for prefix, source in _decoder_sources(network).items():
        if name.startswith(f"{prefix}."):
            return source + name.removeprefix(f"{prefix}.")
    return name.removeprefix("encoder.")


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
            f"loading {path} as {network.config.backbone}: another image encoder{_size_of(found)}: "
            f"missing {shortened(missing)}; unexpected {shortened(unexpected)}; other shape {shortened(other)}"
        )


def _size_of(encoder: dict[str, Tensor]) -> str:
    """Say which official size an encoder's tensors look like, where they look like one."""
    width = encoder.get("trunk.patch_embed.proj.weight")
    blocks = {name.split(".")[2] for name in encoder if name.startswith("trunk.blocks.")}
    size = _SIZES.get((len(width), len(blocks))) if width is not None else None
    return f" (the file looks like a hiera_{size}; set model.backbone to match it)" if size else ""
