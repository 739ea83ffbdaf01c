"""The image that a U-Net sees: means of whole groups of working voxels, anchored at the volume (`patches`).

It is gathered slab by slab, front to back: the working voxels under a patch, mostly eight times as many, are never held
together. A group that the bounds cut repeats its last voxel. Numpy only: no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam4em_core.axis import Bounds, Vector, require_covering
from sam4em_core.errors import ImageShapeError
from sam4em_core.patches import PatchGrid

# U-Net slices that are made at a time.
_SLAB_SLICES = 8


@dataclass(frozen=True)
class LatticeImage:
    """Grey values of a box of U-Net voxels."""

    image_zyx: NDArray[np.float32]
    """Grey values in [0, 1]."""
    start: Vector
    """Position of the first voxel, in U-Net voxels from the start of the bounds."""


class LatticeGatherer:
    """Makes the U-Net's image around a box out of slabs of working voxels."""

    box: Bounds
    """Working voxels that the image is made of: whole patches, inside the bounds."""

    def __init__(self, grid: PatchGrid, start: Vector, stop: Vector) -> None:
        """Gather what the signed distances of a box read.

        Args:
            grid: the volume's patches.
            start: first working voxel whose distance is wanted.
            stop: one past the last one.
        """
        self._factors = grid.factors_zyx
        self.box = grid.context(start, stop)
        spans = [grid.image_span(axis, start[axis], stop[axis]) for axis in range(3)]
        self._start = (spans[0][0], spans[1][0], spans[2][0])
        self._shape = (spans[0][1] - spans[0][0], spans[1][1] - spans[1][0], spans[2][1] - spans[2][0])
        # Made with the first slab: a plan asks many gatherers for their box alone.
        self._image: NDArray[np.float32] | None = None
        self._filled = 0

    @property
    def slab_slices(self) -> int:
        """Working slices that `add` is best given: whole groups."""
        return _SLAB_SLICES * self._factors[0]

    def add(self, values_zyx: NDArray[np.float32]) -> None:
        """Take the next slab, along y and x as wide as `box`, of whole groups along z but for the last one.

        Raises:
            ImageShapeError: it is none.
        """
        depth = min(len(values_zyx), self.box[1][0] - self.box[0][0] - self._filled * self._factors[0])
        wanted = (depth, *(self.box[1][axis] - self.box[0][axis] for axis in (1, 2)))
        groups = -(-depth // self._factors[0])
        if values_zyx.shape != wanted or (depth % self._factors[0] and self._filled + groups < self._shape[0]):
            raise ImageShapeError(
                f"gathering the U-Net's image of {self.box}: a slab has shape {values_zyx.shape}, expected up to "
                f"{wanted} voxels and whole groups of {self._factors[0]} slices"
            )
        missing = [-extent % factor for extent, factor in zip(values_zyx.shape, self._factors, strict=True)]
        whole_zyx = np.pad(values_zyx, [(0, more) for more in missing], mode="edge") if any(missing) else values_zyx
        if self._image is None:
            self._image = np.empty(self._shape, dtype=np.float32)
        self._image[self._filled : self._filled + groups] = downsampled(whole_zyx, self._factors)
        self._filled += groups

    def image(self) -> LatticeImage:
        """Give what was gathered.

        Raises:
            ImageShapeError: slabs are missing.
        """
        if self._image is None or self._filled < self._shape[0]:
            raise ImageShapeError(
                f"gathering the U-Net's image of {self.box}: {self._filled} of {self._shape[0]} slices are there"
            )
        return LatticeImage(self._image, self._start)


def lattice_image(
    grid: PatchGrid, image_zyx: NDArray[np.float32], image_start: Vector, start: Vector, stop: Vector
) -> LatticeImage:
    """Make the U-Net's image around a box out of an array that holds all it reads.

    Args:
        grid: the volume's patches.
        image_zyx: grey values in [0, 1] of working voxels.
        image_start: position of the array's first voxel.
        start: first working voxel whose distance is wanted.
        stop: one past the last one.

    Raises:
        ImageShapeError: the array is no float32 volume, or does not cover `LatticeGatherer.box`.
    """
    gatherer = LatticeGatherer(grid, start, stop)
    low, high = gatherer.box
    require_covering(image_zyx, image_start, low, high, f"predicting distances of {start} to {stop}")
    rows, columns = (slice(low[axis] - image_start[axis], high[axis] - image_start[axis]) for axis in (1, 2))
    for first in range(low[0], high[0], gatherer.slab_slices):
        last = min(high[0], first + gatherer.slab_slices)
        gatherer.add(image_zyx[first - image_start[0] : last - image_start[0], rows, columns])
    return gatherer.image()


def downsampled(image_zyx: NDArray[np.float32], factors_zyx: Vector) -> NDArray[np.float32]:
    """Means of whole groups of voxels; the shape must be a multiple of the factors."""
    means = image_zyx
    for axis, factor in enumerate(factors_zyx):
        if factor == 1:
            continue
        shape = means.shape
        groups = means.reshape(*shape[:axis], shape[axis] // factor, factor, *shape[axis + 1 :])
        # Added one after the other: the same bits whatever the array's shape.
        total = groups.take(0, axis=axis + 1)
        for index in range(1, factor):
            total = total + groups.take(index, axis=axis + 1)
        means = np.asarray(total / np.float32(factor), dtype=np.float32)
    return np.ascontiguousarray(means)
