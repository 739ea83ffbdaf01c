"""Segmenting slices that look at their neighbors' signed distances (memory = sdf): training windows and rings.

    levels   encoder, once per slice
    entry    memory encoder on (top level, signed distance), once per slice
    masks    memory attention over the entries of the neighbors, fusion, decoders

Suffixes: B streams (tiles), T slices of a window, K classes, H and W the image side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sam4em_core.encoder import LevelFeatures
from sam4em_core.errors import CoreConfigError, ImageShapeError
from sam4em_core.memory_sdf import SIGMOID_BIAS, SIGMOID_SCALE, Neighbor, SdfMemory
from sam4em_core.model import Sam4emNet

# Cells of the grid on which the smooth part of the noise is drawn, per side.


@dataclass(frozen=True)
class SliceMasks:
    """The masks of a window of T slices."""

    coarse_BTKHW: Tensor
    """Logits of the coarse decoder."""
    refined_BTKHW: Tensor
    """Logits of the refined decoder: the output."""


@dataclass(frozen=True)
class MemoryFaults:
    """How the memory lies to a network in training, so that it keeps looking at the image."""

    neighbor_dropout: float = 0.0
    """Chance that a neighbor is left out."""
    memory_dropout: float = 0.0
    """Chance that a slice sees no neighbor at all."""


NO_FAULTS = MemoryFaults()


def memory_of(network: Sam4emNet) -> SdfMemory:
    """Give a network's memory.

    Raises:
        CoreConfigError: the network has another one.
    """
    if network.sdf_memory is None:
        raise CoreConfigError(f"looking at neighbors: the network has memory: {network.config.memory}, not sdf")
    return network.sdf_memory


def masks_of(network: Sam4emNet, levels: LevelFeatures, neighbors: list[Neighbor]) -> tuple[Tensor, Tensor]:
    """Segment one slice per stream: coarse and refined logits, both (B, K, H, W).

    Args:
        network: with memory = sdf.
        levels: the slices' own.
        neighbors: what they look at.
    """
    seen = memory_of(network).read(levels.fpn16, neighbors)
    return network.decode_alone(network.encoder.fused(levels, seen))


def neighbors_of(network: Sam4emNet, z: int, entries: Mapping[int, Tensor]) -> list[Neighbor]:
    """Choose what a slice looks at among the entries that are there, in z order."""
    config = memory_of(network).config
    return [
        Neighbor(offset // config.stride, entries[z + offset]) for offset in config.offsets() if z + offset in entries
    ]


def forward_fields(
    network: Sam4emNet,
    image_BTHW: Tensor,
    field_BTKHW: Tensor | None,
    *,
    faults: MemoryFaults = NO_FAULTS,
    truncate_every: int = 4,
    generator: torch.Generator | None = None,
) -> SliceMasks:
    """Segment windows of contiguous slices; a slice's neighbors are those inside its window.

    Args:
        network: with memory = sdf.
        image_BTHW: grey values in [0, 1]; H = W, a multiple of 32.
        field_BTKHW: signed distance / tau per class; it gets no gradient. None with `source: logits`.
        faults: of the memory, in training.
        truncate_every: with `source: logits`, slices after which the gradient through the memory is cut; 0 never cuts.
        generator: source of the faults' random numbers (a CPU generator).

    Raises:
        ImageShapeError: the image is no square window, or the field does not fit it.
        CoreConfigError: the network has another memory.
    """
    memory = memory_of(network)
    if image_BTHW.dim() != 4:
        raise ImageShapeError(f"a window has shape (streams, slices, height, width), found {tuple(image_BTHW.shape)}")
    streams, length, height, width = image_BTHW.shape
    levels = network.encoder.levels(image_BTHW.transpose(0, 1).reshape(-1, 1, height, width))
    if memory.config.source == "logits":
        masks = list(_chained(network, levels.chunked(streams), faults, truncate_every, generator, LogitChain(network)))
        coarse, refined = (torch.stack(parts, dim=1) for parts in zip(*masks, strict=True))
        return SliceMasks(coarse, refined)
    if field_BTKHW is None or field_BTKHW.shape != (streams, length, network.config.num_classes, height, width):
        found = None if field_BTKHW is None else tuple(field_BTKHW.shape)
        raise ImageShapeError(f"signed distances of a window of shape {tuple(image_BTHW.shape)}: found {found}")
    field = field_BTKHW.detach().transpose(0, 1).flatten(0, 1)
    entries = dict(enumerate(memory.entry(levels.fpn16, field).split(streams)))
    seen = []
    for z, level in enumerate(levels.fpn16.split(streams)):
        seen.append(memory.read(level, kept(neighbors_of(network, z, entries), faults, generator)))
    masks_TB = network.decode_alone(network.encoder.fused(levels, torch.cat(seen)))
    coarse, refined = (mask.unflatten(0, (length, streams)).transpose(0, 1) for mask in masks_TB)
    return SliceMasks(coarse, refined)


def _chained(
    network: Sam4emNet,
    levels_T: list[LevelFeatures],
    faults: MemoryFaults,
    truncate_every: int,
    generator: torch.Generator | None,
    chain: LogitChain,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Segment slice after slice, each looking at the masks of those before it."""
    for index, levels in enumerate(levels_T):
        if truncate_every and index and index % truncate_every == 0:
            chain.detach()
        coarse, refined = masks_of(network, levels, kept(chain.neighbors(), faults, generator))
        chain.append(levels, refined)
        yield coarse, refined


def forward_propagation(
    network: Sam4emNet,
    image_BTHW: Tensor,
    mask_BKHW: Tensor,
    *,
    faults: MemoryFaults = NO_FAULTS,
    truncate_every: int = 4,
    generator: torch.Generator | None = None,
) -> SliceMasks:
    """Carry the mask of a window's first slice through the slices after it.

    Args:
        network: with memory = sdf and `source: logits`.
        image_BTHW: grey values in [0, 1]; H = W, a multiple of 32; at least two slices.
        mask_BKHW: the first slice's mask: 1 inside, 0 outside, floating.
        faults: of the memory, in training.
        truncate_every: slices after which the gradient through the predicted masks is cut; 0 never cuts.
        generator: source of the faults' random numbers (a CPU generator).

    Returns:
        The masks of the slices after the first.

    Raises:
        ImageShapeError: the image is no square window of two slices or more.
        CoreConfigError: the network has another memory.
    """
    require_chain(network)
    if image_BTHW.dim() != 4 or image_BTHW.shape[1] < 2:
        raise ImageShapeError(
            "carrying a mask: a window has shape (streams, slices, height, width) with at least two slices, found "
            f"{tuple(image_BTHW.shape)}"
        )
    streams, _, height, width = image_BTHW.shape
    levels = network.encoder.levels(image_BTHW.transpose(0, 1).reshape(-1, 1, height, width))
    first, *others = levels.chunked(streams)
    chain = LogitChain(network)
    chain.begin(first, mask_BKHW)
    masks = list(_chained(network, others, faults, truncate_every, generator, chain))
    coarse, refined = (torch.stack(parts, dim=1) for parts in zip(*masks, strict=True))
    return SliceMasks(coarse, refined)


def require_chain(network: Sam4emNet) -> None:
    """Refuse a network that does not remember its masks.

    Raises:
        CoreConfigError: see above.
    """
    if memory_of(network).config.source != "logits":
        raise CoreConfigError(
            "carrying a mask: the network remembers signed distances; one with sdf_memory.source: logits carries masks"
        )


class LogitChain:
    """SAM2's own memory: entries of the last slices' predicted masks, and of a slice whose mask was given."""

    def __init__(self, network: Sam4emNet) -> None:
        self._memory = memory_of(network)
        config = self._memory.config
        self._stride = config.stride
        self._entries: deque[Tensor] = deque(maxlen=config.reach_slices)
        self._given: list[Neighbor] = []

    def begin(self, levels: LevelFeatures, mask_BKHW: Tensor) -> None:
        """Forget everything and remember one slice by the mask that is given for it, as long as the chain goes on.

        Args:
            levels: the slice's own.
            mask_BKHW: 1 inside, 0 outside, floating.
        """
        self._entries.clear()
        # SAM2 gives a mask that was handed in as logits of this size, and the row of conditioning frames.
        entry = self._memory.entry(levels.fpn16, mask_BKHW * SIGMOID_SCALE + SIGMOID_BIAS)
        self._given = [Neighbor(0, entry)]

    def neighbors(self) -> list[Neighbor]:
        """Give what the next slice looks at: what was given, then the last slices in z order."""
        steps = range(len(self._entries) // self._stride, 0, -1)
        return self._given + [Neighbor(-step, self._entries[-step * self._stride]) for step in steps]

    def append(self, levels: LevelFeatures, logits_BKHW: Tensor) -> None:
        """Remember a slice by its mask."""
        self._entries.append(self._memory.entry(levels.fpn16, logits_BKHW))

    def detach(self) -> None:
        """Cut the gradient through what is remembered."""
        entries = [entry.detach() for entry in self._entries]
        self._entries.clear()
        self._entries.extend(entries)


def kept(neighbors: list[Neighbor], faults: MemoryFaults, generator: torch.Generator | None) -> list[Neighbor]:
    """Leave out neighbors at random, or all of them; the same ones for every stream."""
    if faults.memory_dropout > 0 and float(torch.rand((), generator=generator)) < faults.memory_dropout:
        return []
    if faults.neighbor_dropout <= 0:
        return neighbors
    draws = torch.rand(len(neighbors), generator=generator).tolist()
    return [neighbor for neighbor, draw in zip(neighbors, draws, strict=True) if draw >= faults.neighbor_dropout]
