"""Sparse tables of how many voxels each pair of labels shares. Integers only, for volumes of any size."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import fastremap
import numpy as np
import numpy.typing as npt

from pipeline.errors import OurError

LabelArray = npt.NDArray[np.unsignedinteger]
IdArray = npt.NDArray[np.uint64]
CountArray = npt.NDArray[np.int64]

_DENSE_FACTOR = 2
"""A dense histogram is used while it has at most this many bins per voxel."""


@dataclass(frozen=True)
class PairTable:
    """One row per pair of labels that shares a voxel, sorted by `left`, then `right`. 0 counts as a label."""

    left: IdArray
    """(n,) ids in the first volume."""
    right: IdArray
    """(n,) ids in the second volume."""
    num_voxels: CountArray
    """(n,) voxels with that pair, > 0."""

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.left)

    @classmethod
    def empty(cls) -> PairTable:
        """The table of no voxels."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))

    def select(self, rows: npt.NDArray[np.bool_]) -> PairTable:
        """Keep the rows where `rows` is true."""
        return PairTable(self.left[rows], self.right[rows], self.num_voxels[rows])

    def left_sizes(self) -> tuple[IdArray, CountArray]:
        """Ids of the first volume and their voxels."""
        return _sum_by(self.left, self.num_voxels)

    def right_sizes(self) -> tuple[IdArray, CountArray]:
        """Ids of the second volume and their voxels."""
        return _sum_by(self.right, self.num_voxels)


def _sum_by(ids: IdArray, counts: CountArray) -> tuple[IdArray, CountArray]:
    """Add up the counts of equal ids; ids come back sorted."""
    unique, inverse = np.unique(ids, return_inverse=True)
    sums = np.zeros(len(unique), np.int64)
    np.add.at(sums, inverse, counts)
    return unique, sums


def count_pairs(left_zyx: LabelArray, right_zyx: LabelArray) -> PairTable:
    """Count the voxels of every pair of labels.

    Both arrays are renumbered densely first, so a pair fits one 64-bit key whatever the ids are.

    Args:
        left_zyx: labels, any shape, unsigned.
        right_zyx: labels of the same voxels.

    Returns:
        The pairs that share a voxel; background (0) is a label like others.

    Raises:
        OurError: shapes differ, or the labels are not unsigned integers.
    """
    if left_zyx.shape != right_zyx.shape:
        raise OurError(f"counting label pairs: shapes {left_zyx.shape} and {right_zyx.shape} differ")
    if left_zyx.dtype.kind != "u" or right_zyx.dtype.kind != "u":
        raise OurError(f"counting label pairs: {left_zyx.dtype} and {right_zyx.dtype} must both be unsigned")
    if left_zyx.size == 0:
        return PairTable.empty()
    left_ids, left = _dense(left_zyx)
    right_ids, right = _dense(right_zyx)
    keys = left.astype(np.int64) * len(right_ids)
    keys += right
    num_bins = len(left_ids) * len(right_ids)
    if num_bins <= _DENSE_FACTOR * keys.size:
        histogram = np.bincount(keys, minlength=num_bins)
        found = np.flatnonzero(histogram)
        counts = histogram[found].astype(np.int64)
    else:
        found, counts = np.unique(keys, return_counts=True)
    rows = PairTable(left_ids[found // len(right_ids)], right_ids[found % len(right_ids)], counts)
    return merge_tables([rows])


def _dense(labels: LabelArray) -> tuple[IdArray, npt.NDArray[np.unsignedinteger]]:
    """Renumber labels to 0..n-1 and give the id of each number."""
    flat = np.ascontiguousarray(labels).reshape(-1)
    numbers, mapping = fastremap.renumber(flat, start=1, preserve_zero=True)
    ids = np.zeros(len(mapping) + 1, np.uint64)
    for label, number in mapping.items():
        ids[int(number)] = np.uint64(int(label))
    return ids, numbers


def merge_tables(tables: Iterable[PairTable]) -> PairTable:
    """Add tables over disjoint voxels. Order and grouping of the tables do not change the result."""
    parts = list(tables)
    if not parts:
        return PairTable.empty()
    left = np.concatenate([part.left for part in parts])
    right = np.concatenate([part.right for part in parts])
    counts = np.concatenate([part.num_voxels for part in parts])
    if not len(left):
        return PairTable.empty()
    order = np.lexsort((right, left))
    left, right, counts = left[order], right[order], counts[order]
    new = np.ones(len(left), np.bool_)
    new[1:] = (left[1:] != left[:-1]) | (right[1:] != right[:-1])
    starts = np.flatnonzero(new)
    return PairTable(left[starts], right[starts], np.add.reduceat(counts, starts))
