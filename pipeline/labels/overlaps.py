"""Counts which labels of two neighbours share voxels in the slab that both computed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.arrays import AnyLabelArray, check_same_shape, check_unsigned

# A table with one entry per possible label is used up to this many entries beyond four per voxel; else sorting is less.
_SPARE_ENTRIES = 2**16


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
    first_voxel: NDArray[np.uint64]
    """The first voxel that carries both, counted through the slab, x fastest: where to look."""


class OneSided(NamedTuple):
    """Labels where the neighbour sees background; both lists sorted by label."""

    lower_only: NDArray[np.uint64]
    """Labels of the lower block."""
    lower_only_voxels: NDArray[np.uint64]
    """How many of their voxels in the slab are the neighbour's background."""
    upper_only: NDArray[np.uint64]
    """Labels of the upper block."""
    upper_only_voxels: NDArray[np.uint64]
    """How many of their voxels in the slab are the lower block's background."""


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
    lower_ids, lower_counts = _count_labels(lower)
    upper_ids, upper_counts = _count_labels(upper)
    starts, lengths = _find_runs(lower[both], upper[both])
    runs = both[starts]
    # Ranks are below the slab's voxel count, so a pair of them fits 64 bits whatever the ids are.
    width = np.uint64(len(upper_ids))
    lower_rank = np.searchsorted(lower_ids, lower[runs]).astype(np.uint64)
    keys = lower_rank * width + np.searchsorted(upper_ids, upper[runs]).astype(np.uint64)
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] + np.uint64(1)))
    pairs = keys[order[bounds]]
    first, second = (pairs // width).astype(np.intp), (pairs % width).astype(np.intp)
    return OverlapTable(
        lower=lower_ids[first].astype(np.uint64),
        upper=upper_ids[second].astype(np.uint64),
        num_voxels=np.add.reduceat(lengths[order], bounds).astype(np.uint64),
        lower_voxels=lower_counts[first].astype(np.uint64),
        upper_voxels=upper_counts[second].astype(np.uint64),
        first_voxel=runs[order[bounds]].astype(np.uint64),
    )


def count_one_sided(lower_zyx: AnyLabelArray, upper_zyx: AnyLabelArray) -> OneSided:
    """Count where one block has a label and the other background.

    Args:
        lower_zyx: labels of the block with the smaller index, shape (z, y, x).
        upper_zyx: labels of its neighbour over the same voxels; same shape.

    Raises:
        OurError: the slabs differ in shape or do not hold unsigned integers.
    """
    check_same_shape(lower_zyx, upper_zyx, "counting one-sided labels")
    check_unsigned(lower_zyx, "counting one-sided labels, lower slab")
    check_unsigned(upper_zyx, "counting one-sided labels, upper slab")
    lower_only, lower_voxels = _count_labels(lower_zyx[upper_zyx == 0])
    upper_only, upper_voxels = _count_labels(upper_zyx[lower_zyx == 0])
    return OneSided(*(part.astype(np.uint64) for part in (lower_only, lower_voxels, upper_only, upper_voxels)))


def without(table: OverlapTable, lower: int, upper: int) -> OverlapTable:
    """Take a label of either side out of a table of pairs: labels that stand for no object of their block."""
    rows = (table.lower != np.uint64(lower)) & (table.upper != np.uint64(upper))
    return OverlapTable(*(column[rows] for column in table))


def alone_without(table: OneSided, lower: int, upper: int) -> OneSided:
    """Take a label of either side out of a table of one-sided labels."""
    first, second = table.lower_only != np.uint64(lower), table.upper_only != np.uint64(upper)
    return OneSided(
        table.lower_only[first],
        table.lower_only_voxels[first],
        table.upper_only[second],
        table.upper_only_voxels[second],
    )


def _count_labels(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Give the labels that occur, sorted, without background, and how often each does."""
    largest = int(labels.max(initial=0))
    if largest == 0:
        return np.empty(0, labels.dtype), np.empty(0, np.int64)
    if largest > 4 * labels.size + _SPARE_ENTRIES:
        return np.unique(labels[labels != 0], return_counts=True)
    counts = np.bincount(labels.astype(np.intp, copy=False), minlength=largest + 1)
    counts[0] = 0
    ids = np.flatnonzero(counts)
    return ids.astype(labels.dtype), counts[ids]


def _find_runs(lower: NDArray[Any], upper: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Find stretches of one pair: where each begins, and how long it is. A tenth of the voxels, or fewer, to sort."""
    changes = np.flatnonzero((lower[1:] != lower[:-1]) | (upper[1:] != upper[:-1])) + 1
    starts = np.concatenate([np.zeros(1, np.intp), changes])
    return starts, np.diff(starts, append=len(lower))


def empty_overlaps() -> OverlapTable:
    """Make the table of a slab in which nothing is shared."""
    return OverlapTable(*(np.empty(0, np.uint64) for _ in OverlapTable._fields))


def empty_one_sided() -> OneSided:
    """Make the table of a slab in which nothing stands alone."""
    return OneSided(*(np.empty(0, np.uint64) for _ in OneSided._fields))
