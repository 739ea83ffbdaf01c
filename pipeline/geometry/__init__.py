"""Integer geometry: boxes, block grids, lattices of different voxel size."""

from pipeline.geometry.box import Box, Vector, ceil_div
from pipeline.geometry.grid import BlockGrid, nests

__all__ = ["BlockGrid", "Box", "Vector", "ceil_div", "nests"]
