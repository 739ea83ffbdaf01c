"""One axis of a grid: tiles that cover an extent, and the voxels they read where the data end. No torch.

Spans are half-open, in voxels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam4em_core.errors import ImageShapeError

Vector = tuple[int, int, int]
Bounds = tuple[Vector, Vector]
Span = tuple[int, int]


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


def fewest_tiles(extent: int, largest_side: int, overlap: int, multiple: int) -> TileAxis:
    """Cover an extent with as few tiles as the largest side allows, all of one side, no larger than needed."""
    count = max(1, -(-(extent - overlap) // (largest_side - overlap)))
    side = -(-(extent + (count - 1) * overlap) // (count * multiple)) * multiple
    if count > 1:
        # Blending takes no more than two tiles at a place.
        side = max(side, -(-2 * overlap // multiple) * multiple)
    return TileAxis(extent, count, side, side - overlap if count > 1 else side)


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


def require_covering(
    image_zyx: NDArray[np.float32], image_start: Vector, start: Vector, stop: Vector, doing: str
) -> None:
    """Refuse an image that is no float32 volume, or does not cover what is read.

    Args:
        image_zyx: grey values.
        image_start: position of its first voxel.
        start: first voxel that is read.
        stop: one past the last one.
        doing: for the message.

    Raises:
        ImageShapeError: see above.
    """
    if image_zyx.ndim != 3 or image_zyx.dtype != np.float32:
        raise ImageShapeError(
            f"{doing}: the image has {image_zyx.ndim} axes and type {image_zyx.dtype}, expected three axes (z, y, x) "
            "and float32"
        )
    end = tuple(first + extent for first, extent in zip(image_start, image_zyx.shape, strict=True))
    if any(have > want for have, want in zip(image_start, start, strict=True)) or any(
        have < want for have, want in zip(end, stop, strict=True)
    ):
        raise ImageShapeError(f"{doing}: it reads {start} to {stop}, the image has {image_start} to {end}")
