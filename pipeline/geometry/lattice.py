"""Lattices of different voxel size over one origin, and which voxels of one need which of the other.

A lattice is its spacing: voxel i covers [i * spacing, (i + 1) * spacing) nm from the common origin.
A *ratio* is target spacing / source spacing, per axis: 2.0 makes an image smaller, 0.5 larger.

    source   |  0  |  1  |  2  |  3  |  4  |  5  |
    ratio 2  |     0     |     1     |     2     |     every target voxel averages what it covers
    ratio 0.5| 0| 1| 2| 3| 4| 5| 6| 7| 8| 9|10|11|     every target voxel interpolates two neighbors
"""

from __future__ import annotations

import math

from pipeline.geometry.box import Box, Vector

Spacing = tuple[float, float, float]
"""Three positive lengths (nm) or ratios in zyx order."""

# Ratios such as 8 nm / 5 nm are not exact in binary; a voxel border this close to an integer is one.
SNAP_VOXELS = 1e-6


def ratio_between(source_nm: Spacing, target_nm: Spacing) -> Spacing:
    """Divide target spacing by source spacing, per axis."""
    return (target_nm[0] / source_nm[0], target_nm[1] / source_nm[1], target_nm[2] / source_nm[2])


def snapped_floor(value: float) -> int:
    """Round down, but a value within `SNAP_VOXELS` below an integer is that integer."""
    return math.floor(value + SNAP_VOXELS)


def snapped_ceil(value: float) -> int:
    """Round up, but a value within `SNAP_VOXELS` above an integer is that integer."""
    return math.ceil(value - SNAP_VOXELS)


def covering_shape(source_shape: Vector, ratio: Spacing) -> Vector:
    """Give the number of target voxels that cover `source_shape` source voxels."""
    return (
        snapped_ceil(source_shape[0] / ratio[0]),
        snapped_ceil(source_shape[1] / ratio[1]),
        snapped_ceil(source_shape[2] / ratio[2]),
    )


def covering_box(source: Box, ratio: Spacing) -> Box:
    """Give the target voxels that cover a source box, rounded outwards.

    Args:
        source: a box of source voxels.
        ratio: target spacing / source spacing.

    Returns:
        The smallest box of target voxels that holds every source voxel.
    """
    start = [snapped_floor(source.start[axis] / ratio[axis]) for axis in range(3)]
    stop = [snapped_ceil(source.stop[axis] / ratio[axis]) for axis in range(3)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def source_box(target: Box, ratio: Spacing, bounds: Box) -> Box:
    """Give the source voxels that resampling a target box reads.

    Args:
        target: the voxels wanted, on the target lattice.
        ratio: target spacing / source spacing.
        bounds: the source voxels that exist; reads beyond repeat the border voxel.

    Returns:
        A box inside `bounds`, never empty when `target` and `bounds` are not.
    """
    ranges = [
        _axis_range(target.start[axis], target.stop[axis], ratio[axis], bounds.start[axis], bounds.stop[axis])
        for axis in range(3)
    ]
    return Box((ranges[0][0], ranges[1][0], ranges[2][0]), (ranges[0][1], ranges[1][1], ranges[2][1]))


def _axis_range(start: int, stop: int, ratio: float, lower: int, upper: int) -> tuple[int, int]:
    if ratio > 1:
        first = snapped_floor(start * ratio)
        last = snapped_ceil(stop * ratio)
    elif ratio == 1:
        first, last = start, stop
    else:
        first = snapped_floor((start + 0.5) * ratio - 0.5)
        last = snapped_floor((stop - 0.5) * ratio - 0.5) + 2
    first = min(max(first, lower), upper - 1)
    return first, max(first + 1, min(last, upper))
