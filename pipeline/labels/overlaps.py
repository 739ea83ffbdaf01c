"""Counts which labels of two neighbours share voxels in the slab that both computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.arrays import AnyLabelArray, check_same_shape, check_unsigned


class OverlapTable(NamedTuple):
    """One row per pair of labels that share a voxel, sorted by lower, then upper."""

    lower: NDArray[np.uint64]
    """Label in the block with the smaller index."""
    upper: NDArray[np.uint64]
    """Label in its neighbour."""
    num_voxels: NDArray[np.uint64]
    """Voxels of the slab that carry both."""
    lower_voxels: NDArray[np.uint64]
    """Voxels of the slab that carry `lower`, whatever the neighbour says."""
    upper_voxels: NDArray[np.uint64]
    """Voxels of the slab that carry `upper`."""


def count_overlaps(lower_zyx: AnyLabelArray, upper_zyx: AnyLabelArray) -> OverlapTable:
    """Count the voxels each pair of labels shares in one slab.

    Background (0) is counted on neither side.

    Args:
        lower_zyx: labels of the block with the smaller index, shape (z, y, x).
        upper_zyx: labels of its neighbour over the same voxels; same shape.

    Returns:
        One row per pair that shares a voxel, sorted by lower, then upper.

    Raises:
        OurError: the slabs differ in shape or do not hold unsigned integers.
    """
    check_same_shape(lower_zyx, upper_zyx, "counting overlaps")
    check_unsigned(lower_zyx, "counting overlaps, lower slab")
    check_unsigned(upper_zyx, "counting overlaps, upper slab")
    lower, upper = lower_zyx.ravel(), upper_zyx.ravel()
    both = np.flatnonzero((lower != 0) & (upper != 0))
    if len(both) == 0:
        return empty_overlaps()
    lower_ids, lower_counts = np.unique(lower[lower != 0], return_counts=True)
    upper_ids, upper_counts = np.unique(upper[upper != 0], return_counts=True)
    lower_rank = np.searchsorted(lower_ids, lower[both]).astype(np.uint64)
    upper_rank = np.searchsorted(upper_ids, upper[both]).astype(np.uint64)
    # Ranks are below the slab's voxel count, so a pair of them fits 64 bits whatever the ids are.
    width = np.uint64(len(upper_ids))
    pairs, shared = np.unique(lower_rank * width + upper_rank, return_counts=True)
    first, second = (pairs // width).astype(np.intp), (pairs % width).astype(np.intp)
    return OverlapTable(
        lower=lower_ids[first].astype(np.uint64),
        upper=upper_ids[second].astype(np.uint64),
        num_voxels=shared.astype(np.uint64),
        lower_voxels=lower_counts[first].astype(np.uint64),
        upper_voxels=upper_counts[second].astype(np.uint64),
    )


def empty_overlaps() -> OverlapTable:
    """Make the table of a slab in which nothing is shared."""
    return OverlapTable(*(np.empty(0, np.uint64) for _ in OverlapTable._fields))
