"""The model's grids: tiles in y and x, windows in z, all anchored at the origin of the working lattice.

    y, x    tile k covers [k * stride, k * stride + side), stride = side - overlap, k = 0 .. count - 1;
            side is the smallest multiple of 32 with which as few tiles as the checkpoint's `tile_side` allows cover it
    z       window k covers [k * S, (k + 1) * S); its memory starts W slices earlier, and for -z W slices later

A block asks for every tile and window that has a part in its core, and computes each of them whole. Nothing depends on
where a block begins, so a voxel's probability does not either. Integers and weights only: no torch.

`domain` is the region that is segmented, [0, shape) on the working lattice. `bounds` is where image data exists; with a
region of interest it reaches beyond the domain, to negative voxels too. Only outside the bounds a tile is padded, by
reflection inside its own valid part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sam4em_core.config import SIDE_MULTIPLE
from sam4em_core.errors import CoreConfigError

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader

Vector = tuple[int, int, int]
Bounds = tuple[Vector, Vector]
Span = tuple[int, int]

# Bytes of one float32.
_FLOAT = 4

# Peak activations of encoding and decoding one slice, in float32 values per pixel and per d_model channel.
# Source: measured, small model, 256-px tiles, batch of 6: encoding 0.39, decoding 0.77; rounded up.
_ACTIVATIONS_PER_PIXEL_CHANNEL = 0.9


@dataclass(frozen=True)
class TileAxis:
    """The tiles of a domain along y or x: as few as the largest side allows, all of one side, no larger than needed."""

    extent: int
    """Voxels of the domain along this axis."""
    count: int
    """Number of tiles, at least one."""
    side: int
    """Voxels of a tile, a multiple of SIDE_MULTIPLE."""
    stride: int
    """Distance of neighboring tiles, in voxels."""

    def span(self, tile: int) -> Span:
        """Voxels of one tile."""
        return tile * self.stride, tile * self.stride + self.side

    def touching(self, start: int, stop: int) -> range:
        """Tiles that have weight on a voxel of [start, stop)."""
        first = max(0, (start - self.side) // self.stride + 1)
        return range(first, min(self.count, (stop - 1) // self.stride + 1))

    @property
    def unit(self) -> int:
        """A core is best a multiple of this: it then begins where a tile does."""
        return self.stride if self.count > 1 else self.extent

    def ramp(self, tile: int) -> NDArray[np.float32]:
        """Blending weights of one tile, (side,).

        Linear over the overlap with each neighbor, 1 elsewhere: neighboring weights add up to 1, so that nothing is
        left to divide by, and the weights depend on the tile's index in the domain only.
        """
        weights = np.ones(self.side, dtype=np.float32)
        overlap = self.side - self.stride
        rising = (np.arange(overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(max(1, overlap))
        if tile > 0:
            weights[:overlap] = rising
        if tile < self.count - 1:
            weights[self.side - overlap :] = np.float32(1) - rising
        return weights


def tile_axis(extent: int, header: CheckpointHeader) -> TileAxis:
    """The tiles along an axis of the domain of `extent` voxels."""
    overlap = header.tile_overlap
    count = max(1, -(-(extent - overlap) // (header.tile_side - overlap)))
    side = -(-(extent + (count - 1) * overlap) // (count * SIDE_MULTIPLE)) * SIDE_MULTIPLE
    return TileAxis(extent, count, side, side - overlap if count > 1 else side)


def tile_axes(domain_shape: Vector, header: CheckpointHeader) -> tuple[TileAxis, TileAxis]:
    """The tiles of a domain along y and x."""
    return tile_axis(domain_shape[1], header), tile_axis(domain_shape[2], header)


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


def valid_span(span: Span, bounds: Span) -> Span:
    """The part of a span where image data exists; the nearest voxel where there is none."""
    start, stop = max(span[0], bounds[0]), min(span[1], bounds[1])
    if start < stop:
        return start, stop
    nearest = bounds[0] if span[1] <= bounds[0] else bounds[1] - 1
    return nearest, nearest + 1


def reflected(span: Span, bounds: Span) -> NDArray[np.int64]:
    """For every voxel of a span, the voxel that it reads: itself, or its reflection inside the valid part."""
    start, stop = valid_span(span, bounds)
    last = stop - start - 1
    offset = np.arange(span[0], span[1], dtype=np.int64) - start
    if last == 0:
        return np.full(len(offset), start, dtype=np.int64)
    folded = np.abs(offset) % (2 * last)
    return start + np.minimum(folded, 2 * last - folded)


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

    Raises:
        CoreConfigError: the core is empty or leaves the domain.
    """
    require_core(core_start, core_stop, domain_shape)
    spans = [_z_context(core_start[0], core_stop[0], domain_shape[0], (bounds[0][0], bounds[1][0]), header)]
    for axis, grid in zip((1, 2), tile_axes(domain_shape, header), strict=True):
        tiles = grid.touching(core_start[axis], core_stop[axis])
        along = (bounds[0][axis], bounds[1][axis])
        parts = [valid_span(grid.span(tile), along) for tile in (tiles[0], tiles[-1])]
        spans.append((min(part[0] for part in parts), max(part[1] for part in parts)))
    return (spans[0][0], spans[1][0], spans[2][0]), (spans[0][1], spans[1][1], spans[2][1])


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
    depth, bounds_z = domain_shape[0], (bounds[0][0], bounds[1][0])
    steps = 0
    for window in windows_touching(core_start[0], core_stop[0], header):
        reads, own = window_spans(window, depth, bounds_z, header)
        steps += (own[1] - reads[0]) + (reads[1] - own[0])
    touching = [grid.touching(core_start[axis], core_stop[axis]) for axis, grid in zip((1, 2), axes, strict=True)]
    calls = len(batches_of(touching[0], touching[1], axes[1].count, size))
    return steps * calls * size * axes[0].side * axes[1].side // 2


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
    return host, _device_bytes(header, pixels)


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
