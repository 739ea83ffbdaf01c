"""A tree of groups of blocks: leaves are boxes of neighboring blocks, every level above doubles the box.

    level 0            level 1            level 2: the root
    +--+--+--+         +-----+--+         +--------+
    |  |  |  |         |     |  |         |        |        a group of level n is made of at most eight
    +--+--+--+    ->   |     |  |    ->   |        |        groups of level n - 1
    |  |  |  |         |     |  |         |        |
    +--+--+--+         +-----+--+         +--------+

Nodes are numbered level by level from the leaves up, so children have smaller numbers than their parent and the root
has the last one. Everything is O(1): no list of groups exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import OurError
from pipeline.geometry.box import Box, Vector
from pipeline.geometry.grid import BlockGrid


@dataclass(frozen=True)
class GroupTree:
    """Groups of the blocks of one grid, up to the one group that holds all of them."""

    blocks: Vector
    """Number of blocks along z, y and x."""
    leaf: Vector
    """Blocks of a leaf along z, y and x; the last of each axis may have fewer."""

    @property
    def num_levels(self) -> int:
        """Levels, the root's included."""
        level = 0
        while len(self.level(level)) > 1:
            level += 1
        return level + 1

    @property
    def num_nodes(self) -> int:
        """Groups of all levels."""
        return sum(len(self.level(level)) for level in range(self.num_levels))

    def level(self, level: int) -> BlockGrid:
        """Give the groups of a level as a grid whose voxels are blocks."""
        scale = 2**level
        core = (self.leaf[0] * scale, self.leaf[1] * scale, self.leaf[2] * scale)
        return BlockGrid(Box.of_shape(self.blocks), core)

    def locate(self, node: int) -> tuple[int, int]:
        """Turn a node's number into its level and its index in the level.

        Raises:
            OurError: there is no such node.
        """
        rest = node
        for level in range(self.num_levels):
            count = len(self.level(level))
            if 0 <= rest < count:
                return level, rest
            rest -= count
        raise OurError(f"group {node} does not exist; the tree has {self.num_nodes}")

    def number(self, level: int, index: int) -> int:
        """Give the number of a node."""
        return sum(len(self.level(below)) for below in range(level)) + index

    def box(self, node: int) -> Box:
        """Give the blocks of a group, as a box of block positions."""
        level, index = self.locate(node)
        return self.level(level).box(index)

    def children(self, node: int) -> list[int]:
        """Give the groups a group is made of, z slowest; none for a leaf."""
        level, index = self.locate(node)
        if level == 0:
            return []
        first = self.number(level - 1, 0)
        return [first + child for child in self.level(level - 1).touched_by(self.level(level).box(index))]

    def parent(self, node: int) -> int:
        """Give the group that a group is part of.

        Raises:
            OurError: the node is the root.
        """
        level, index = self.locate(node)
        if level + 1 == self.num_levels:
            raise OurError(f"group {node} is the root and has no parent")
        z, y, x = self.level(level).position(index)
        return self.number(level + 1, self.level(level + 1).index((z // 2, y // 2, x // 2)))

    def positions(self, node: int) -> Iterator[Vector]:
        """Yield the positions of a group's blocks, z slowest."""
        box = self.box(node)
        for z in range(box.start[0], box.stop[0]):
            for y in range(box.start[1], box.stop[1]):
                for x in range(box.start[2], box.stop[2]):
                    yield (z, y, x)


def leaf_of(blocks: Vector, most: int) -> Vector:
    """Choose the blocks of a leaf: as near to a cube as the grid allows, each extent doubled while it fits.

    Args:
        blocks: number of blocks along each axis.
        most: blocks that one leaf may hold.

    Returns:
        All blocks where they fit; else a box of at most `most` blocks.
    """
    if blocks[0] * blocks[1] * blocks[2] <= most:
        return blocks
    leaf = [1, 1, 1]
    while True:
        growable = [axis for axis in range(3) if leaf[axis] < blocks[axis]]
        fitting = [axis for axis in growable if 2 * leaf[0] * leaf[1] * leaf[2] <= most]
        if not fitting:
            return (leaf[0], leaf[1], leaf[2])
        leaf[min(fitting, key=lambda axis: leaf[axis])] *= 2
