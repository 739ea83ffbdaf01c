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

from typing import TYPE_CHECKING

from sam4em_core.axis import Bounds, Span, TileAxis, Vector, fewest_tiles, reflected, valid_span
from sam4em_core.config import SIDE_MULTIPLE
from sam4em_core.errors import CoreConfigError
from sam4em_core.header import unet_factors
from sam4em_core.lattice import LatticeGatherer
from sam4em_core.patches import PatchGrid, patch_grid

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader

__all__ = [
    "Bounds",
    "Span",
    "TileAxis",
    "Vector",
    "batches_of",
    "context_of",
    "field_grid",
    "gatherer_of",
    "model_voxels",
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

    With signed distances that is where they are needed, too; what the U-Net reads is in `gatherer_of`.

    Raises:
        CoreConfigError: the core is empty or leaves the domain.
    """
    require_core(core_start, core_stop, domain_shape)
    spans = [_z_context(core_start[0], core_stop[0], domain_shape[0], (bounds[0][0], bounds[1][0]), header)]
    spans += _yx_context(core_start, core_stop, bounds, domain_shape, header)
    return (spans[0][0], spans[1][0], spans[2][0]), (spans[0][1], spans[1][1], spans[2][1])


def gatherer_of(
    core_start: Vector, core_stop: Vector, bounds: Bounds, domain_shape: Vector, header: CheckpointHeader
) -> LatticeGatherer:
    """What makes the U-Net's image for predicting a core.

    Raises:
        CoreConfigError: the model has no U-Net, or the core is empty or leaves the domain.
    """
    return LatticeGatherer(field_grid(bounds, header), *context_of(core_start, core_stop, bounds, domain_shape, header))


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
    if header.model.needs_field:
        reach = header.model.sdf_memory.reach_slices
        return max(start - reach, bounds_z[0]), min(stop + reach, bounds_z[1])
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
    views: int = 1,
) -> int:
    """Voxels that pass through the networks to predict a core, mean of the two directions; empty batch slots count.

    A voxel of a U-Net's patch counts as much as one that passes through encoder and decoders, and takes about half as
    long at the default sizes (0.54 and 1.16 us of CPU, `tests/bench/spatial_cost.py`).
    """
    axes = tile_axes(domain_shape, header)
    size = tiles_per_call(axes, batch or header.batch_tiles)
    touching = [grid.touching(core_start[axis], core_stop[axis]) for axis, grid in zip((1, 2), axes, strict=True)]
    calls = len(batches_of(touching[0], touching[1], axes[1].count, size))
    voxels = views * calls * size * axes[0].side * axes[1].side
    if header.model.needs_field:
        grid = field_grid(bounds, header)
        patches = grid.num_touching(*context_of(core_start, core_stop, bounds, domain_shape, header))
        return (core_stop[0] - core_start[0]) * voxels + patches * grid.patch_voxels
    depth, bounds_z = domain_shape[0], (bounds[0][0], bounds[1][0])
    steps = 0
    for window in windows_touching(core_start[0], core_stop[0], header):
        reads, own = window_spans(window, depth, bounds_z, header)
        steps += (own[1] - reads[0]) + (reads[1] - own[0])
    return steps * voxels // 2
