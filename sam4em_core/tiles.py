"""The model's grids: tiles in y and x, windows in z, all anchored at the origin of the working lattice.

    y, x    tile k covers [k * stride, k * stride + tile), stride = tile - overlap, k = 0 .. count - 1
    z       window k covers [k * S, (k + 1) * S); its memory starts W slices earlier, and for -z W slices later

A block asks for every tile and window that has a part in its core, and computes each of them whole. Nothing depends on
where a block begins, so a voxel's probability does not either. Integers and weights only: no torch.

`domain` is the region that is segmented, [0, shape) on the working lattice. `bounds` is where image data exists; with a
region of interest it reaches beyond the domain, to negative voxels too. Only outside the bounds a tile is padded, by
reflection inside its own valid part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

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


def tile_count(extent: int, header: CheckpointHeader) -> int:
    """Number of tiles that cover an axis of the domain; at least one."""
    return max(1, -(-(extent - header.tile_overlap) // header.stride))


def tiles_touching(start: int, stop: int, extent: int, header: CheckpointHeader) -> range:
    """Tiles of an axis that have weight on a voxel of [start, stop)."""
    first = max(0, (start - header.tile_side) // header.stride + 1)
    return range(first, min(tile_count(extent, header), (stop - 1) // header.stride + 1))


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


def tile_span(tile: int, header: CheckpointHeader) -> Span:
    """Voxels of one tile along y or x."""
    return tile * header.stride, tile * header.stride + header.tile_side


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


def ramp(tile: int, extent: int, header: CheckpointHeader) -> NDArray[np.float32]:
    """Blending weights of one tile along one axis, (tile_side,).

    Linear over the overlap with each neighbor, 1 elsewhere: neighboring weights add up to 1, so that nothing is left to
    divide by, and the weights depend on the tile's index in the domain only.
    """
    weights = np.ones(header.tile_side, dtype=np.float32)
    overlap = header.tile_overlap
    rising = (np.arange(overlap, dtype=np.float32) + np.float32(0.5)) / np.float32(max(1, overlap))
    if tile > 0:
        weights[:overlap] = rising
    if tile < tile_count(extent, header) - 1:
        weights[header.tile_side - overlap :] = np.float32(1) - rising
    return weights


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
    for axis in (1, 2):
        tiles = tiles_touching(core_start[axis], core_stop[axis], domain_shape[axis], header)
        along = (bounds[0][axis], bounds[1][axis])
        parts = [valid_span(tile_span(tile, header), along) for tile in (tiles[0], tiles[-1])]
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


def unit_of(header: CheckpointHeader) -> Vector:
    """A core is best a multiple of this: whole windows and tile strides."""
    return header.window_slices, header.stride, header.stride


def model_voxels(
    core_start: Vector,
    core_stop: Vector,
    bounds: Bounds,
    domain_shape: Vector,
    header: CheckpointHeader,
    batch: int | None = None,
) -> int:
    """Voxels that pass through the decoders to predict a core, mean of the two directions; empty batch slots count."""
    size = batch or header.batch_tiles
    depth, bounds_z = domain_shape[0], (bounds[0][0], bounds[1][0])
    steps = 0
    for window in windows_touching(core_start[0], core_stop[0], header):
        reads, own = window_spans(window, depth, bounds_z, header)
        steps += (own[1] - reads[0]) + (reads[1] - own[0])
    tiles_y = tiles_touching(core_start[1], core_stop[1], domain_shape[1], header)
    tiles_x = tiles_touching(core_start[2], core_stop[2], domain_shape[2], header)
    calls = len(batches_of(tiles_y, tiles_x, tile_count(domain_shape[2], header), size))
    return steps * calls * size * header.tile_side**2 // 2


def projected_bytes(core_shape: Vector, header: CheckpointHeader, batch: int) -> tuple[int, int]:
    """Host and device bytes that predicting a core of this shape takes at most; on a CPU their sum is the host's.

    The interpreter with its libraries is not counted.
    """
    reach, side, classes = header.reach_slices, header.tile_side, header.model.num_classes
    slices = (-(-core_shape[0] // header.window_slices) + 1) * header.window_slices + 2 * reach
    context = slices * (core_shape[1] + 2 * side) * (core_shape[2] + 2 * side)
    core = core_shape[0] * core_shape[1] * core_shape[2]
    window = min(header.window_slices, core_shape[0]) * batch * classes * side * side
    # The image; sums (int32) and result (uint8); one direction's logits and the other's; one slice of temporaries.
    host = context * _FLOAT + core * classes * (_FLOAT + 1) + 2 * window * _FLOAT + core // max(1, core_shape[0]) * 16
    return host, _device_bytes(header, batch)


def _device_bytes(header: CheckpointHeader, batch: int) -> int:
    d_model, side, slices = header.model.d_model, header.tile_side, header.window_slices + 2 * header.reach_slices
    pixels = batch * side * side
    # Embedding at stride 8, skips at strides 4 and 2, and the image.
    kept = pixels * (d_model / 64 + d_model / 4 / 16 + d_model / 8 / 4 + 1)
    memory = 2 * pixels / 64 * (header.model.memory_slots * header.model.memory_dim + d_model)
    activations = pixels * d_model * _ACTIVATIONS_PER_PIXEL_CHANNEL
    return int(_FLOAT * (kept * slices + memory + activations)) + _weight_bytes(header)


def _weight_bytes(header: CheckpointHeader) -> int:
    # Source: MODEL.md 2.5, parameters of the official networks, with room for the new parts.
    millions = {"small": 8, "t": 55, "s": 62, "b+": 97, "l": 241}[header.model.backbone.rpartition("_")[2]]
    return millions * 1_000_000 * _FLOAT
