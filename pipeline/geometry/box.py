"""Boxes: half-open ranges of voxels, in zyx order, as Python integers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import OurError

Vector = tuple[int, int, int]
"""Three integers in zyx order."""


def ceil_div(numerator: int, denominator: int) -> int:
    """Divide and round towards plus infinity."""
    return -(-numerator // denominator)


@dataclass(frozen=True, order=True)
class Box:
    """A half-open box of voxels: `start` is inside, `stop` is not."""

    start: Vector
    """First voxel, zyx."""
    stop: Vector
    """One past the last voxel, zyx. Never below `start`."""

    def __post_init__(self) -> None:
        """Refuse boxes whose stop lies below their start.

        Raises:
            OurError: the box has a negative extent.
        """
        if any(stop < start for start, stop in zip(self.start, self.stop, strict=True)):
            raise OurError(f"box from {self.start} to {self.stop} has a negative extent")

    @classmethod
    def of_shape(cls, shape: Vector, start: Vector = (0, 0, 0)) -> Box:
        """Make the box of the given shape that begins at `start`."""
        return cls(start, (start[0] + shape[0], start[1] + shape[1], start[2] + shape[2]))

    @property
    def shape(self) -> Vector:
        """Extent in voxels, zyx."""
        return (
            self.stop[0] - self.start[0],
            self.stop[1] - self.start[1],
            self.stop[2] - self.start[2],
        )

    @property
    def num_voxels(self) -> int:
        """How many voxels lie inside."""
        shape = self.shape
        return shape[0] * shape[1] * shape[2]

    @property
    def is_empty(self) -> bool:
        """Whether no voxel lies inside."""
        return self.num_voxels == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of this box into an array whose first voxel is (0, 0, 0)."""
        return (
            slice(self.start[0], self.stop[0]),
            slice(self.start[1], self.stop[1]),
            slice(self.start[2], self.stop[2]),
        )

    def shifted(self, offset: Vector) -> Box:
        """Move by `offset` voxels."""
        return Box(
            (self.start[0] + offset[0], self.start[1] + offset[1], self.start[2] + offset[2]),
            (self.stop[0] + offset[0], self.stop[1] + offset[1], self.stop[2] + offset[2]),
        )

    def relative_to(self, origin: Vector) -> Box:
        """Express in coordinates whose zero is `origin`."""
        return self.shifted((-origin[0], -origin[1], -origin[2]))

    def grown(self, halo: Vector) -> Box:
        """Extend by `halo` voxels on both sides of every axis."""
        return Box(
            (self.start[0] - halo[0], self.start[1] - halo[1], self.start[2] - halo[2]),
            (self.stop[0] + halo[0], self.stop[1] + halo[1], self.stop[2] + halo[2]),
        )

    def intersection(self, other: Box) -> Box:
        """Give the common part; an empty box at the clipped start where there is none."""
        start = (
            max(self.start[0], other.start[0]),
            max(self.start[1], other.start[1]),
            max(self.start[2], other.start[2]),
        )
        stop = (
            max(start[0], min(self.stop[0], other.stop[0])),
            max(start[1], min(self.stop[1], other.stop[1])),
            max(start[2], min(self.stop[2], other.stop[2])),
        )
        return Box(start, stop)

    def union(self, other: Box) -> Box:
        """Give the smallest box that holds both."""
        return Box(
            (
                min(self.start[0], other.start[0]),
                min(self.start[1], other.start[1]),
                min(self.start[2], other.start[2]),
            ),
            (
                max(self.stop[0], other.stop[0]),
                max(self.stop[1], other.stop[1]),
                max(self.stop[2], other.stop[2]),
            ),
        )

    def slabs(self, num_slices: int) -> Iterator[Box]:
        """Cut into slabs of so many slices, from the front; the last one may be thinner."""
        for first in range(self.start[0], self.stop[0], num_slices):
            last = min(first + num_slices, self.stop[0])
            yield Box((first, *self.start[1:]), (last, *self.stop[1:]))

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies inside."""
        return other.is_empty or self.intersection(other) == other

    def __str__(self) -> str:
        """Write as z0:z1,y0:y1,x0:x1, the notation of `--roi`."""
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))
