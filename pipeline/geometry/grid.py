"""Block grids: index <-> block in O(1), never a list of all blocks.

domain
+-----------+-----------+-----+     every voxel of the domain lies in exactly one core;
|   core    |   core    |     |     the last block of an axis is clipped to the domain
|     0     |     1     |  2  |
+-----------+-----------+-----+
|     3     |     4     |  5  |     linear index: z slowest, x fastest
+-----------+-----------+-----+
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import OurError
from pipeline.geometry.box import Box, Vector, ceil_div


@dataclass(frozen=True)
class BlockGrid:
    """Cuts a domain into blocks of one core shape, anchored at the domain's start."""

    domain: Box
    """The voxels to cover."""
    core: Vector
    """Core shape of a block in voxels, zyx; the last of each axis may be smaller."""

    def __post_init__(self) -> None:
        """Refuse cores without voxels.

        Raises:
            OurError: a core extent is not positive.
        """
        if min(self.core) <= 0:
            raise OurError(f"block core {self.core} must be positive in every axis")

    @property
    def shape(self) -> Vector:
        """Number of blocks along z, y and x."""
        extent = self.domain.shape
        return (
            ceil_div(extent[0], self.core[0]),
            ceil_div(extent[1], self.core[1]),
            ceil_div(extent[2], self.core[2]),
        )

    def __len__(self) -> int:
        """Number of blocks."""
        shape = self.shape
        return shape[0] * shape[1] * shape[2]

    def position(self, index: int) -> Vector:
        """Turn a linear index into block coordinates (z, y, x).

        Raises:
            OurError: the index lies outside the grid.
        """
        if not 0 <= index < len(self):
            raise OurError(f"block index {index} lies outside a grid of {len(self)} blocks")
        _, num_y, num_x = self.shape
        return index // (num_y * num_x), index // num_x % num_y, index % num_x

    def index(self, position: Vector) -> int:
        """Turn block coordinates (z, y, x) into the linear index."""
        _, num_y, num_x = self.shape
        return (position[0] * num_y + position[1]) * num_x + position[2]

    def box(self, index: int) -> Box:
        """Give the core of a block, in the domain's voxels."""
        position = self.position(index)
        start = (
            self.domain.start[0] + position[0] * self.core[0],
            self.domain.start[1] + position[1] * self.core[1],
            self.domain.start[2] + position[2] * self.core[2],
        )
        return Box.of_shape(self.core, start).intersection(self.domain)

    def upper_neighbor(self, index: int, axis: int) -> int | None:
        """Give the block after this one along `axis` (0 z, 1 y, 2 x), or None at the border."""
        position = list(self.position(index))
        position[axis] += 1
        if position[axis] >= self.shape[axis]:
            return None
        return self.index((position[0], position[1], position[2]))

    def touched_by(self, box: Box) -> Iterator[int]:
        """Yield the blocks whose core shares a voxel with `box`, in index order."""
        inside = box.intersection(self.domain).relative_to(self.domain.start)
        if inside.is_empty:
            return
        first = [inside.start[axis] // self.core[axis] for axis in range(3)]
        last = [ceil_div(inside.stop[axis], self.core[axis]) for axis in range(3)]
        for z in range(first[0], last[0]):
            for y in range(first[1], last[1]):
                for x in range(first[2], last[2]):
                    yield self.index((z, y, x))


def nests(outer: Vector, inner: Vector) -> bool:
    """Whether along every axis one of the two extents is a multiple of the other."""
    return all(a % b == 0 or b % a == 0 for a, b in zip(outer, inner, strict=True))
