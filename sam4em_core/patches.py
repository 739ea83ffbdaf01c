"""The U-Net's grid: voxels that are whole groups of working voxels, in patches, all anchored at the volume.

    working voxels   b b+1 | b+2 b+3 | ...            b: first voxel where image data exists (`bounds`)
    U-Net voxels       0   |    1    | ...            factors_zyx working voxels each
    patches          as `axis.TileAxis`, along z, y and x, over all of the bounds

Bounds, not the domain: the field exists wherever there is an image, so that slices beside a region of interest are
neighbors like any other. Nothing depends on where a block begins. Integers only: no torch.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sam4em_core.axis import Bounds, Span, TileAxis, Vector, fewest_tiles, reflected

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from sam4em_core.config import UnetConfig

# Peak activations of a patch, in float32 values per voxel and channel of the first level.
# Source: measured, widths 8 to 96, patch of 64 x 96 x 96 (`tests/bench/spatial_cost.py`): 11.4; rounded up.
_ACTIVATIONS_PER_VOXEL_CHANNEL = 13
_FLOAT = 4


@dataclass(frozen=True)
class PatchGrid:
    """Patches of one volume."""

    axes: tuple[TileAxis, TileAxis, TileAxis]
    """Along z, y and x, in U-Net voxels from the start of the bounds."""
    factors_zyx: Vector
    """Working voxels per U-Net voxel."""
    bounds: Bounds
    """Where image data exists, in working voxels."""

    @property
    def patch_voxels(self) -> int:
        """U-Net voxels of one patch."""
        return math.prod(axis.side for axis in self.axes)

    def lattice_span(self, axis: int, start: int, stop: int) -> Span:
        """U-Net voxels that interpolating working voxels [start, stop) reads, inside the lattice."""
        factor, first = self.factors_zyx[axis], self.bounds[0][axis]
        last = self.axes[axis].extent - 1
        # Centers: working voxel p lies at (p - first + 1/2) / factor - 1/2.
        low = (2 * (start - first) + 1 - factor) // (2 * factor)
        high = (2 * (stop - 1 - first) + 1 - factor) // (2 * factor) + (factor > 1)
        return min(max(low, 0), last), min(max(high, 0), last) + 1

    def touching(self, start: Vector, stop: Vector) -> Iterator[Vector]:
        """Patches that have weight on what working voxels [start, stop) read, in index order."""
        yield from itertools.product(*self._ranges(start, stop))

    def num_touching(self, start: Vector, stop: Vector) -> int:
        """Count those patches."""
        return math.prod(len(patches) for patches in self._ranges(start, stop))

    def _ranges(self, start: Vector, stop: Vector) -> list[range]:
        spans = [self.lattice_span(axis, start[axis], stop[axis]) for axis in range(3)]
        return [grid.touching(*span) for grid, span in zip(self.axes, spans, strict=True)]

    def working_span(self, axis: int, span: Span) -> Span:
        """Working voxels of a span of the lattice; may end outside the bounds."""
        factor, first = self.factors_zyx[axis], self.bounds[0][axis]
        return first + span[0] * factor, first + span[1] * factor

    def reads(self, patch: Vector) -> list[NDArray[np.int64]]:
        """Per axis, for every voxel of a patch, the U-Net voxel that it reads: reflected where the lattice ends."""
        return [reflected(axis.span(index), (0, axis.extent)) for axis, index in zip(self.axes, patch, strict=True)]

    def image_span(self, axis: int, start: int, stop: int) -> Span:
        """U-Net voxels of the patches that the field of working voxels [start, stop) needs, inside the lattice."""
        grid = self.axes[axis]
        patches = grid.touching(*self.lattice_span(axis, start, stop))
        return grid.span(patches[0])[0], min(grid.span(patches[-1])[1], grid.extent)

    def context(self, start: Vector, stop: Vector) -> Bounds:
        """Working voxels that the field of [start, stop) reads, inside the bounds."""
        spans = []
        for axis in range(3):
            low, high = self.working_span(axis, self.image_span(axis, start[axis], stop[axis]))
            spans.append((low, min(high, self.bounds[1][axis])))
        return (spans[0][0], spans[1][0], spans[2][0]), (spans[0][1], spans[1][1], spans[2][1])


def patch_grid(unet: UnetConfig, factors_zyx: Vector, bounds: Bounds) -> PatchGrid:
    """The patches of a volume.

    Args:
        unet: largest patch, overlap and pooling.
        factors_zyx: working voxels per U-Net voxel.
        bounds: where image data exists, in working voxels.
    """
    axes = []
    for axis, factor in enumerate(factors_zyx):
        extent = -(-(bounds[1][axis] - bounds[0][axis]) // factor)
        axes.append(fewest_tiles(extent, unet.patch_zyx[axis], unet.overlap_zyx[axis], unet.multiple_zyx[axis]))
    return PatchGrid((axes[0], axes[1], axes[2]), factors_zyx, bounds)


def patch_bytes(grid: PatchGrid, unet: UnetConfig) -> int:
    """Bytes that one patch takes at most while it passes through the U-Net."""
    return int(_FLOAT * grid.patch_voxels * unet.widths[0] * _ACTIVATIONS_PER_VOXEL_CHANNEL)
