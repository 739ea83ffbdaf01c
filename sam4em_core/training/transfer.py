"""What a network takes over from another one of ours that has other classes, another memory, or one decoder less.

Tensors are matched by name; what belongs to a class is matched by the class's name. What the base does not have keeps
its random values. A network that carries masks of whatever class begins with the first class of its base, and gives its
one class to all classes of a network that begins with it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sam4em_core.training.config import CARRIED

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor

    from sam4em_core.training.forward import Network

_CLASS_GAIN = "sdf_memory.class_gain"
# A memory of signed distances, or of carried masks, has them.
_TIME_ROWS = "sdf_memory.time_rows"

_CLASS_AXES = {
    "adapter.class_query": 0,
    "decoder.coarse.class_bias": 1,
    "decoder.coarse.mask_tokens.weight": 0,
    "decoder.refined.class_bias": 1,
    "decoder.refined.mask_tokens.weight": 0,
    "decoder.mask_prompt.net.0.weight": 1,
    "decoder.head.stride2.0.0.weight": 1,
    "decoder.head.full.2.weight": 0,
    "decoder.head.full.2.bias": 0,
    "previous_prompt.net.0.weight": 1,
    _CLASS_GAIN: 0,
    "unet.out.weight": 0,
    "unet.out.bias": 0,
    # A U-Net by itself.
    "out.weight": 0,
    "out.bias": 0,
}
"""Axis of a tensor along which the classes lie, behind whatever else lies there."""

_CLASS_MODULE = re.compile(r"(?<=output_hypernetworks_mlps\.)\d+")
"""Number of the class in the name of a decoder's own part of it."""


@dataclass(frozen=True)
class BaseShare:
    """Which tensors of a network come from its base."""

    taken: tuple[str, ...]
    """Taken over, wholly or for the classes that both know."""
    random: tuple[str, ...]
    """Not in the base: random."""
    left_out: tuple[str, ...]
    """In the base, and of no use here."""
    new_classes: tuple[str, ...]
    """Classes that the base does not know."""


def take_over(
    network: Network, classes: tuple[str, ...], base: Network, base_classes: tuple[str, ...], part: str = ""
) -> BaseShare:
    """Fill a network, or a U-Net by itself, from a base of the same kind and sizes.

    Args:
        network: takes the tensors; changed in place.
        classes: its classes, in channel order.
        base: gives them.
        base_classes: the base's classes, in channel order.
        part: tensors whose names begin otherwise stay as they are.
    """
    known = _known(classes, base_classes)
    found, wanted = base.state_dict(), network.state_dict()
    taken, used = {}, set()
    for name, tensor in wanted.items():
        if not name.startswith(part):
            continue
        source = _name_in_base(name, known)
        if name == _CLASS_GAIN and name not in found and _TIME_ROWS in found:
            taken[name] = _as_one_class(tensor, known or range(len(classes)))
        if source is None or source not in found:
            continue
        value = _merged(name, tensor, found[source], known, (len(classes), len(base_classes)))
        if value is not None:
            taken[name] = value
            used.add(source)
    network.load_state_dict({**wanted, **taken})
    if not part:
        network.encoder_origin = base.encoder_origin
    return BaseShare(
        taken=tuple(taken),
        random=tuple(name for name in wanted if name not in taken),
        left_out=tuple(name for name in found if name not in used),
        new_classes=tuple(name for k, name in enumerate(classes) if k not in known),
    )


def _known(classes: tuple[str, ...], base_classes: tuple[str, ...]) -> dict[int, int]:
    """Say which class of the base each class begins with, by number; a class that is new is left out."""
    if base_classes == (CARRIED,) or classes == (CARRIED,):
        return dict.fromkeys(range(len(classes)), 0)
    return {k: base_classes.index(name) for k, name in enumerate(classes) if name in base_classes}


def _as_one_class(gain_KC: Tensor, alike: Collection[int]) -> Tensor:
    """Let the mean over classes be for the memory what the one class of its base was, which has no gains."""
    gain_KC = gain_KC.clone()
    gain_KC[list(alike)] = len(gain_KC) / len(alike)
    return gain_KC


def _name_in_base(name: str, known: Mapping[int, int]) -> str | None:
    """Give the name that a tensor has in the base; None where it belongs to a class that the base does not know."""
    number = _CLASS_MODULE.search(name)
    if number is None:
        return name
    here = int(number.group())
    return _CLASS_MODULE.sub(str(known[here]), name) if here in known else None


def _merged(
    name: str, tensor: Tensor, found: Tensor, known: Mapping[int, int], num_classes: tuple[int, int]
) -> Tensor | None:
    """Give a tensor with the base's values, class by class where classes lie along an axis; None where none fit."""
    axis = _CLASS_AXES.get(name)
    if axis is None:
        return found if found.shape == tensor.shape else None
    shared = tensor.shape[axis] - num_classes[0]
    if shared != found.shape[axis] - num_classes[1] or not (known or shared):
        return None
    here = [*range(shared), *(shared + k for k in known)]
    there = [*range(shared), *(shared + k for k in known.values())]
    return tensor.index_copy(axis, torch.tensor(here), found.index_select(axis, torch.tensor(there)))
