"""The model's grids: tiles in y and x, windows in z, all anchored at the origin of the working lattice.

    y, x    tile k covers [k * stride, k * stride + side), stride = side - overlap, k = 0 .. count - 1;
            side is the smallest multiple of 32 with which as few tiles as the checkpoint's `tile_side` allows cover it;
            where the model takes squares only, both axes have the larger of the two sides
    z       window k covers [k * S, (k + 1) * S); its memory starts W slices earlier, and for -z W slices later

A block asks for every tile and window that has a part in its core, and computes each of them whole. Nothing depends on
where a block begins, so a voxel's probability does not either. Integers and weights only: no torch.

`domain` is the region that is segmented, [0, shape) on the working lattice. `bounds` is where image data exists; with a
region of interest it reaches beyond the domain, to negative voxels too. Only outside the bounds a tile is padded, by
reflection inside its own valid part.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sam4em_core.axis import Bounds, Span, TileAxis, Vector, fewest_tiles, reflected, valid_span
from sam4em_core.config import SIDE_MULTIPLE
from sam4em_core.errors import CoreConfigError
from sam4em_core.header import unet_factors
from sam4em_core.patches import PatchGrid, patch_bytes, patch_grid

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.header import CheckpointHeader

__all__ = [
    "Bounds",
    "Span",
    "TileAxis",
    "Vector",
    "batches_of",
    "context_of",
    "field_grid",
    "field_region",
    "model_voxels",
    "projected_bytes",
    "reflected",
    "require_core",
    "tile_axes",
    "tile_axis",
    "tiles_per_call",
    "unit_of",
    "valid_span",
    "window_spans",
    "windows_touching",
]

# Bytes of one float32.
_FLOAT = 4

# Peak activations of encoding and decoding one slice, in float32 values per pixel and per d_model channel.
# Source: measured, small model, 256-px tiles, batch of 6: encoding 0.39, decoding 0.77; rounded up.
_ACTIVATIONS_PER_PIXEL_CHANNEL = 0.9


def tile_axis(extent: int, header: CheckpointHeader) -> TileAxis:
    """The tiles along an axis of the domain of `extent` voxels, for models that take rectangles."""
    return fewest_tiles(extent, header.tile_side, header.tile_overlap, SIDE_MULTIPLE)


def tile_axes(domain_shape: Vector, header: CheckpointHeader) -> tuple[TileAxis, TileAxis]:
    """The tiles of a domain along y and x; squares where the model needs them."""
    axes = tile_axis(domain_shape[1], header), tile_axis(domain_shape[2], header)
    if not header.model.needs_square:
        return axes
    side, overlap = max(axes[0].side, axes[1].side), header.tile_overlap
    counts = [max(1, -(-(axis.extent - overlap) // (side - overlap))) for axis in axes]
    square = [
        TileAxis(axis.extent, count, side, side - overlap if count > 1 else side)
        for axis, count in zip(axes, counts, strict=True)
    ]
    return square[0], square[1]


def tiles_per_call(axes: tuple[TileAxis, TileAxis], batch: int) -> int:
    """Tiles of one model call: `batch`, or as many as the domain has."""
    return min(batch, axes[0].count * axes[1].count)


def windows_touching(start: int, stop: int, header: CheckpointHeader) -> range:
    """Windows along z that have a slice in [start, stop)."""
    return range(start // header.window_slices, -(-stop // header.window_slices))


def window_spans(window: int, depth: int, bounds_z: Span, header: CheckpointHeader) -> tuple[Span, Span]:
    """The slices that a window reads and those that it owns, as half-open spans.

    Warm-up slices exist only inside the bounds; owned slices end with the domain.
    """
    own = (window * header.window_slices, min(depth, (window + 1) * header.window_slices))
    reads = (
        max(own[0] - header.reach_slices, min(bounds_z[0], own[0])),
        min(own[1] + header.reach_slices, max(bounds_z[1], own[1])),
    )
    return reads, own


def batches_of(tiles_y: range, tiles_x: range, num_x: int, batch: int) -> list[dict[int, Span]]:
    """Pack tiles into model calls: one dict slot -> (tile_y, tile_x) per call.

    A tile's slot follows from its index in the domain, so that it has the same place in the batch whatever the block.
    """
    calls: list[dict[int, Span]] = []
    for tile_y in tiles_y:
        for tile_x in tiles_x:
            slot = (tile_y * num_x + tile_x) % batch
            free = next((call for call in calls if slot not in call), None)
            if free is None:
                free = {}
                calls.append(free)
            free[slot] = (tile_y, tile_x)
    return calls


def context_of(
    core_start: Vector, core_stop: Vector, bounds: Bounds, domain_shape: Vector, header: CheckpointHeader
) -> Bounds:
    """The working voxels that predicting a core reads, as (start, stop), inside the bounds.

    With signed distances that is the largest of what the tiles, the neighbors and the U-Net's patches read.

    Raises:
        CoreConfigError: the core is empty or leaves the domain.
    """
    require_core(core_start, core_stop, domain_shape)
    if header.model.needs_field:
        start, stop = field_region(core_start, core_stop, bounds, domain_shape, header)
        low, high = field_grid(bounds, header).context(start, stop)
        return _each(min, start, low), _each(max, stop, high)
    spans = [_z_context(core_start[0], core_stop[0], domain_shape[0], (bounds[0][0], bounds[1][0]), header)]
    spans += _yx_context(core_start, core_stop, bounds, domain_shape, header)
    return (spans[0][0], spans[1][0], spans[2][0]), (spans[0][1], spans[1][1], spans[2][1])


def _each(choose: Callable[[int, int], int], one: Vector, other: Vector) -> Vector:
    return choose(one[0], other[0]), choose(one[1], other[1]), choose(one[2], other[2])


def _yx_context(
    core_start: Vector, core_stop: Vector, bounds: Bounds, domain_shape: Vector, header: CheckpointHeader
) -> list[Span]:
    """What the tiles of a core read along y and x, inside the bounds."""
    spans = []
    for axis, grid in zip((1, 2), tile_axes(domain_shape, header), strict=True):
        tiles = grid.touching(core_start[axis], core_stop[axis])
        along = (bounds[0][axis], bounds[1][axis])
        parts = [valid_span(grid.span(tile), along) for tile in (tiles[0], tiles[-1])]
        spans.append((min(part[0] for part in parts), max(part[1] for part in parts)))
    return spans


def field_region(
    core_start: Vector, core_stop: Vector, bounds: Bounds, domain_shape: Vector, header: CheckpointHeader
) -> Bounds:
    """The working voxels whose signed distances predicting a core needs: its tiles, and the slices' neighbors."""
    reach = header.model.sdf_memory.reach_slices
    span_y, span_x = _yx_context(core_start, core_stop, bounds, domain_shape, header)
    low, high = max(core_start[0] - reach, bounds[0][0]), min(core_stop[0] + reach, bounds[1][0])
    return (low, span_y[0], span_x[0]), (high, span_y[1], span_x[1])


def field_grid(bounds: Bounds, header: CheckpointHeader) -> PatchGrid:
    """The U-Net's patches of a volume.

    Raises:
        CoreConfigError: the model has no U-Net.
    """
    unet = header.model.unet
    if unet is None:
        raise CoreConfigError(f"model {header.name}: it has no U-Net (memory: {header.model.memory})")
    return patch_grid(unet, unet_factors(header.working_voxel_size_zyx_nm, unet), bounds)


def _z_context(start: int, stop: int, depth: int, bounds_z: Span, header: CheckpointHeader) -> Span:
    windows = windows_touching(start, stop, header)
    parts = [valid_span(window_spans(w, depth, bounds_z, header)[0], bounds_z) for w in (windows[0], windows[-1])]
    return min(part[0] for part in parts), max(part[1] for part in parts)


def require_core(core_start: Vector, core_stop: Vector, domain_shape: Vector) -> None:
    """Refuse a core that is empty or leaves the domain.

    Raises:
        CoreConfigError: it is, or it does.
    """
    for start, stop, extent in zip(core_start, core_stop, domain_shape, strict=True):
        if not 0 <= start < stop <= extent:
            raise CoreConfigError(
                f"predicting the core {core_start} to {core_stop}: it must be non-empty and inside the domain of shape "
                f"{domain_shape}"
            )


def unit_of(domain_shape: Vector, header: CheckpointHeader) -> Vector:
    """A core is best a multiple of this: whole windows and tile strides."""
    grid_y, grid_x = tile_axes(domain_shape, header)
    return header.window_slices, grid_y.unit, grid_x.unit


def model_voxels(
    core_start: Vector,
    core_stop: Vector,
    bounds: Bounds,
    domain_shape: Vector,
    header: CheckpointHeader,
    batch: int | None = None,
) -> int:
    """Voxels that pass through the decoders to predict a core, mean of the two directions; empty batch slots count."""
    axes = tile_axes(domain_shape, header)
    size = tiles_per_call(axes, batch or header.batch_tiles)
    touching = [grid.touching(core_start[axis], core_stop[axis]) for axis, grid in zip((1, 2), axes, strict=True)]
    calls = len(batches_of(touching[0], touching[1], axes[1].count, size))
    voxels = calls * size * axes[0].side * axes[1].side
    if header.model.needs_field:
        return (core_stop[0] - core_start[0]) * voxels
    depth, bounds_z = domain_shape[0], (bounds[0][0], bounds[1][0])
    steps = 0
    for window in windows_touching(core_start[0], core_stop[0], header):
        reads, own = window_spans(window, depth, bounds_z, header)
        steps += (own[1] - reads[0]) + (reads[1] - own[0])
    return steps * voxels // 2


def projected_bytes(core_shape: Vector, domain_shape: Vector, header: CheckpointHeader, batch: int) -> tuple[int, int]:
    """Host and device bytes that predicting a core of this shape takes at most; on a CPU their sum is the host's.

    The interpreter with its libraries is not counted.
    """
    axes = tile_axes(domain_shape, header)
    side_y, side_x = axes[0].side, axes[1].side
    pixels = tiles_per_call(axes, batch) * side_y * side_x
    slices = (-(-core_shape[0] // header.window_slices) + 1) * header.window_slices + 2 * header.reach_slices
    context = slices * (core_shape[1] + 2 * side_y) * (core_shape[2] + 2 * side_x)
    core = core_shape[0] * core_shape[1] * core_shape[2]
    classes = header.model.num_classes
    window = min(header.window_slices, core_shape[0]) * classes * pixels
    # The image; sums (int32) and result (uint8); one direction's logits and the other's; one slice of temporaries.
    host = context * _FLOAT + core * classes * (_FLOAT + 1) + 2 * window * _FLOAT + core // max(1, core_shape[0]) * 16
    if header.model.needs_field:
        return _field_host_bytes(core_shape, domain_shape, header), _field_device_bytes(domain_shape, header, pixels)
    return host, _device_bytes(header, pixels)


def _field_host_bytes(core_shape: Vector, domain_shape: Vector, header: CheckpointHeader) -> int:
    """Image and field with everything around a core, sums, and the result with its distances."""
    axes, grid = tile_axes(domain_shape, header), field_grid(((0, 0, 0), domain_shape), header)
    reach = header.model.sdf_memory.reach_slices
    region = [core_shape[0] + 2 * reach, core_shape[1] + 2 * axes[0].side, core_shape[2] + 2 * axes[1].side]
    # A region that is not cut at a patch's border reads the rest of two patches.
    margins = [2 * axis.side * factor for axis, factor in zip(grid.axes, grid.factors_zyx, strict=True)]
    image = math.prod(extent + margin for extent, margin in zip(region, margins, strict=True))
    patch = grid.patch_voxels * math.prod(grid.factors_zyx)
    classes = header.model.num_classes
    coarse = math.prod(region) // math.prod(grid.factors_zyx)
    # The field and one step of its interpolation; int64 sums of the coarse field.
    field = classes * (math.prod(region) * 2 * _FLOAT + coarse * (8 + _FLOAT))
    return image * _FLOAT + patch * 2 * _FLOAT + field + math.prod(core_shape) * classes * (_FLOAT + 2)


def _field_device_bytes(domain_shape: Vector, header: CheckpointHeader, pixels: int) -> int:
    """The ring of levels and entries with the activations of one slice, or one patch of the U-Net."""
    model, grid = header.model, field_grid(((0, 0, 0), domain_shape), header)
    reach, d_model = model.sdf_memory.reach_slices, model.d_model
    levels = pixels * (d_model * (1 / 16 + 1 / 64 + 1 / 256) + 1) * (reach + 1)
    entries = pixels / 256 * model.memory_dim * (2 * reach + 1)
    # Keys with their positions, rotated keys and values of one layer, for every neighbor.
    attention = pixels / 256 * len(model.sdf_memory.offsets()) * (2 * model.memory_dim + 4 * d_model)
    activations = pixels * d_model * _ACTIVATIONS_PER_PIXEL_CHANNEL
    slices = int(_FLOAT * (levels + entries + attention + activations))
    unet = patch_bytes(grid, model.unet) if model.unet is not None else 0
    return max(slices, unet) + _weight_bytes(header)


def _device_bytes(header: CheckpointHeader, pixels: int) -> int:
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
