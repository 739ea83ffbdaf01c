"""One block to predict, and the tiles of it that pass through a network together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam4em_core import tiles
from sam4em_core.axis import require_covering
from sam4em_core.errors import NonFiniteError
from sam4em_core.header import CheckpointHeader
from sam4em_core.lattice import LatticeImage
from sam4em_core.model import Sam4emNet
from sam4em_core.tiles import Bounds, Span, TileAxis, Vector

Flip = tuple[bool, bool]
"""Mirrored along y, along x."""
NO_FLIP: Flip = (False, False)
ALL_FLIPS: tuple[Flip, ...] = (NO_FLIP, (False, True), (True, False), (True, True))
"""What test-time flips average over."""

# Weighted probabilities are summed as integers of this unit.
ONE = 1 << 24


@dataclass(frozen=True)
class BlockInput:
    """One block to predict. All positions are voxels of the working lattice, zyx."""

    image_zyx: NDArray[np.float32]
    """Grey values in [0, 1] of [image_start, image_start + shape); covers the block's context."""
    image_start: Vector
    """Position of the image's first voxel."""
    bounds: Bounds
    """Where image data exists, (start, stop)."""
    domain_shape: Vector
    """The whole region that is segmented; it begins at voxel 0."""
    core_start: Vector
    """First voxel wanted."""
    core_stop: Vector
    """One past the last voxel wanted."""
    unet_image: LatticeImage | None = None
    """What the U-Net reads (`tiles.gatherer_of`); default: made of `image_zyx`, which then covers that too."""


@dataclass(frozen=True)
class ModelCall:
    """Tiles that pass through the network together."""

    axes: tuple[TileAxis, TileAxis]
    """The domain's tiles along y and x."""
    size: int
    """Slots of the call, empty ones included: every call has one shape."""
    slots: dict[int, Span]
    """Slot -> (tile along y, tile along x)."""
    flip: Flip = NO_FLIP
    """Whether the network sees its tiles mirrored along y, along x."""


def require_image(block: BlockInput, header: CheckpointHeader) -> None:
    """Refuse an image that is no float32 volume, or does not cover the context of the core.

    Raises:
        CoreConfigError: the core is empty or leaves the domain.
        ImageShapeError: see above.
    """
    start, stop = tiles.context_of(block.core_start, block.core_stop, block.bounds, block.domain_shape, header)
    doing = f"predicting the core {block.core_start} to {block.core_stop}"
    require_covering(block.image_zyx, block.image_start, start, stop, doing)


def tile_images(block: BlockInput, call: ModelCall, z: int) -> NDArray[np.float32]:
    """The tiles of one slice of the image, (size, 1, side y, side x)."""
    return cut_tiles(block.image_zyx[None, z - block.image_start[0]], block.image_start, block.bounds, call)


def cut_tiles(slice_cyx: NDArray[np.float32], start: Vector, bounds: Bounds, call: ModelCall) -> NDArray[np.float32]:
    """Cut the tiles of a call out of one slice.

    Args:
        slice_cyx: covers what the tiles read inside the bounds.
        start: position of its first voxel (z is not looked at).
        bounds: where data exist; outside a tile reads its own reflection.
        call: the tiles.

    Returns:
        (size, channels, side y, side x); unused slots stay zero, so that every call has one shape.
    """
    result = np.zeros((call.size, len(slice_cyx), call.axes[0].side, call.axes[1].side), dtype=np.float32)
    for slot, tile in call.slots.items():
        rows, columns = (
            tiles.reflected(grid.span(index), (bounds[0][axis], bounds[1][axis])) - start[axis]
            for axis, grid, index in zip((1, 2), call.axes, tile, strict=True)
        )
        result[slot] = flipped(slice_cyx[:, rows[:, None], columns[None, :]], call.flip)
    return result


def read_by(call: ModelCall, bounds: Bounds) -> tuple[Span, Span]:
    """What the tiles of a call read inside the bounds, along y and x: (first y, first x), (one past the last ones)."""
    low, high = [], []
    for axis, grid, indices in zip((1, 2), call.axes, zip(*call.slots.values(), strict=True), strict=True):
        parts = [tiles.valid_span(grid.span(index), (bounds[0][axis], bounds[1][axis])) for index in indices]
        low.append(min(part[0] for part in parts))
        high.append(max(part[1] for part in parts))
    return (low[0], low[1]), (high[0], high[1])


def flipped(values_KHW: NDArray[np.float32], flip: Flip) -> NDArray[np.float32]:
    """Mirror tiles in their last two axes; doing it twice gives them back."""
    step_y, step_x = (-1 if mirrored else 1 for mirrored in flip)
    return values_KHW[..., ::step_y, ::step_x]


def add_tile(
    sums_czyx: NDArray[np.int32],
    probability_KHW: NDArray[np.float32],
    z: int,
    tile: Span,
    block: BlockInput,
    axes: tuple[TileAxis, TileAxis],
) -> None:
    """Add one tile's weighted probabilities to the part of the core that it covers.

    Args:
        sums_czyx: sums so far, of the core, in units of 1 / `ONE`.
        probability_KHW: of the whole tile.
        z: the slice, in working voxels.
        tile: index along y and x.
        block: what is predicted.
        axes: the domain's tiles along y and x.
    """
    into, out_of, weights = [], [], []
    for axis, grid, index in zip((1, 2), axes, tile, strict=True):
        begin, end = grid.span(index)
        low, high = max(begin, block.core_start[axis]), min(end, block.core_stop[axis])
        into.append(slice(low - block.core_start[axis], high - block.core_start[axis]))
        out_of.append(slice(low - begin, high - begin))
        weights.append(grid.ramp(index)[low - begin : high - begin])
    weight_yx = weights[0][:, None] * weights[1][None, :]
    units = np.rint(probability_KHW[:, out_of[0], out_of[1]] * weight_yx * np.float32(ONE)).astype(np.int32)
    sums_czyx[:, z - block.core_start[0], into[0], into[1]] += units


def as_bytes(sums_czyx: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Turn sums into bytes: a probability of 1 is 255."""
    result = np.empty(sums_czyx.shape, dtype=np.uint8)
    for z in range(sums_czyx.shape[1]):
        scaled = (sums_czyx[:, z].astype(np.int64) * 255 + ONE // 2) // ONE
        result[:, z] = np.clip(scaled, 0, 255).astype(np.uint8)
    return result


def probability_of(logits_BKHW: Tensor, z: int) -> NDArray[np.float32]:
    """Probabilities of logits; `z` is for the message.

    Raises:
        NonFiniteError: one is not a number.
    """
    probability: NDArray[np.float32] = logits_BKHW.sigmoid().cpu().numpy()
    if not np.isfinite(probability).all():
        raise NonFiniteError(f"predicting slice {z}: the network gave a value that is not a number; check the image")
    return probability


def device_of(network: Sam4emNet) -> torch.device:
    """Where a network is."""
    return network.encoder.mean.device


def precision_of(network: Sam4emNet) -> torch.autocast:
    """bf16 on CUDA, fp32 elsewhere."""
    kind = device_of(network).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind == "cuda")
