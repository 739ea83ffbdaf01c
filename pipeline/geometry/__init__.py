"""Integer geometry: boxes, block grids, lattices of different voxel size."""

from pipeline.geometry.box import Box, Vector, ceil_div
from pipeline.geometry.grid import BlockGrid, nests
from pipeline.geometry.groups import GroupTree, leaf_of
from pipeline.geometry.lattice import Spacing, covering_box, covering_shape, ratio_between, source_box

__all__ = [
    "BlockGrid",
    "Box",
    "GroupTree",
    "Spacing",
    "Vector",
    "ceil_div",
    "covering_box",
    "covering_shape",
    "leaf_of",
    "nests",
    "ratio_between",
    "source_box",
]
