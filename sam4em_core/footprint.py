"""Bytes that predicting a block takes, before anything runs. No torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sam4em_core.axis import TileAxis, Vector
from sam4em_core.patches import patch_bytes
from sam4em_core.tiles import field_grid, tile_axes, tiles_per_call

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader
    from sam4em_core.patches import PatchGrid

# Bytes of one float32.
_FLOAT = 4

# Peak activations of encoding and decoding one slice, in float32 values per pixel and per d_model channel.
# Source: measured, small model, 256-px tiles, batch of 6: encoding 0.39, decoding 0.77; rounded up.
_ACTIVATIONS_PER_PIXEL_CHANNEL = 0.9


def projected_bytes(core_shape: Vector, domain_shape: Vector, header: CheckpointHeader, batch: int) -> tuple[int, int]:
    """Host and device bytes that predicting a core of this shape takes at most; on a CPU their sum is the host's.

    The interpreter with its libraries is not counted.

    Args:
        core_shape: voxels of the block that are wanted.
        domain_shape: voxels of the whole region.
        header: the model.
        batch: tiles per model call.
    """
    axes = tile_axes(domain_shape, header)
    pixels = tiles_per_call(axes, batch) * axes[0].side * axes[1].side
    context = _context_shape(core_shape, axes, header)
    core, classes = math.prod(core_shape), header.model.num_classes
    # The image; sums (int32) and result (uint8).
    host = math.prod(context) * _FLOAT + core * classes * (_FLOAT + 1)
    if header.model.needs_field:
        grid = field_grid(((0, 0, 0), domain_shape), header)
        # The core's distances, and both channels put together.
        host += _field_bytes(context, grid, classes) + core * classes * 3
        return host, _ring_bytes(header, grid, pixels)
    window = min(header.window_slices, core_shape[0]) * classes * pixels
    # One direction's logits and the other's; one slice of temporaries.
    host += 2 * window * _FLOAT + core // max(1, core_shape[0]) * 16
    return host, _chain_bytes(header, pixels)


def _context_shape(core_shape: Vector, axes: tuple[TileAxis, TileAxis], header: CheckpointHeader) -> Vector:
    """Voxels that a core's slices read, at most: of whole tiles and windows, wherever the core lies."""
    if header.model.needs_field:
        depth = core_shape[0] + 2 * header.model.sdf_memory.reach_slices
    else:
        windows = -(-core_shape[0] // header.window_slices) + (core_shape[0] % header.window_slices > 0)
        depth = windows * header.window_slices + 2 * header.reach_slices
    height, width = (
        # A core of whole strides begins where a tile does.
        min(axis.span(axis.count - 1)[1], extent + axis.side * (1 if extent % axis.unit == 0 else 2))
        for axis, extent in zip(axes, core_shape[1:], strict=True)
    )
    return depth, height, width


def _field_bytes(context: Vector, grid: PatchGrid, classes: int) -> int:
    """The U-Net's image and its output around a region, on the U-Net's lattice, and slices of working voxels."""
    inner, outer = 1, 1
    for axis, extent, factor in zip(grid.axes, context, grid.factors_zyx, strict=True):
        read = min(axis.extent, -(-extent // factor) + 2)
        # As many patches as can touch so many voxels.
        patches = min(axis.count, (read + axis.side - 2) // axis.stride + 1)
        inner *= read
        outer *= min(axis.extent, (patches - 1) * axis.stride + axis.side)
    slice_voxels = context[1] * context[2]
    # Sums (int64), divided and as they came (float32); of a slice, what interpolation holds.
    return outer * _FLOAT + inner * classes * (8 + 2 * _FLOAT) + slice_voxels * classes * 4 * _FLOAT


def _ring_bytes(header: CheckpointHeader, grid: PatchGrid, pixels: int) -> int:
    """The ring of levels and entries with the activations of one slice, or one patch of the U-Net."""
    model = header.model
    reach, d_model = model.sdf_memory.reach_slices, model.d_model
    levels = pixels * (d_model * (1 / 16 + 1 / 64 + 1 / 256) + 1) * (reach + 1)
    entries = pixels / 256 * model.memory_dim * (2 * reach + 1)
    # Keys with their positions, rotated keys and values of one layer, for every neighbor.
    attention = pixels / 256 * len(model.sdf_memory.offsets()) * (2 * model.memory_dim + 4 * d_model)
    activations = pixels * d_model * _ACTIVATIONS_PER_PIXEL_CHANNEL
    slices = int(_FLOAT * (levels + entries + attention + activations))
    unet = patch_bytes(grid, model.unet) if model.unet is not None else 0
    return max(slices, unet) + _weight_bytes(header)


def _chain_bytes(header: CheckpointHeader, pixels: int) -> int:
    """The slices of a window with its warm-up, the memory of a chain, and the activations of one slice."""
    d_model, slices = header.model.d_model, header.window_slices + 2 * header.reach_slices
    # Embedding at stride 8, skips at strides 4 and 2, and the image.
    kept = pixels * (d_model / 64 + d_model / 4 / 16 + d_model / 8 / 4 + 1)
    memory = 2 * pixels / 64 * (header.model.memory_slots * header.model.memory_dim + d_model)
    activations = pixels * d_model * _ACTIVATIONS_PER_PIXEL_CHANNEL
    return int(_FLOAT * (kept * slices + memory + activations)) + _weight_bytes(header)


def _weight_bytes(header: CheckpointHeader) -> int:
    # Source: MODEL.md 2.5, parameters of the official networks, with room for the new parts.
    millions = {"small": 8, "t": 55, "s": 62, "b+": 97, "l": 241}[header.model.backbone.rpartition("_")[2]]
    return millions * 1_000_000 * _FLOAT
