"""Makes the next level of a label pyramid: the most frequent id of every cell, never an average."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.geometry import Vector
from pipeline.labels.arrays import SegmentArray, check_unsigned


def downsample_mode(labels_zyx: SegmentArray, factor_zyx: Vector) -> SegmentArray:
    """Take the most frequent id of every cell of `factor_zyx` voxels.

    Background counts as an id. Of equally frequent ids the smallest that is not background wins, so that a
    sheet one voxel thin survives. At an odd end a cell holds the voxels that are there.

    Args:
        labels_zyx: ids, shape (z, y, x).
        factor_zyx: extent of a cell in voxels, each at least 1.

    Returns:
        Shape (ceil(z / fz), ceil(y / fy), ceil(x / fx)), same dtype.

    Raises:
        OurError: a factor is not positive, or the array does not hold unsigned integers.
    """
    check_unsigned(labels_zyx, "downsampling labels")
    if min(factor_zyx) < 1:
        raise OurError(f"downsampling labels: factors must be positive, found {factor_zyx}")
    for axis in range(3):
        rest = labels_zyx.shape[axis] % factor_zyx[axis]
        if rest:
            return _join_rest(labels_zyx, factor_zyx, axis, rest)
    return _downsample_even(labels_zyx, factor_zyx)


def _join_rest(labels_zyx: SegmentArray, factor_zyx: Vector, axis: int, rest: int) -> SegmentArray:
    """Downsample the whole cells and the cut last cell of one axis apart, and join them."""
    whole = labels_zyx.shape[axis] - rest
    low, high = np.split(labels_zyx, [whole], axis=axis)
    cut_factor = list(factor_zyx)
    cut_factor[axis] = rest
    last = downsample_mode(high, (cut_factor[0], cut_factor[1], cut_factor[2]))
    if whole == 0:
        return last
    return cast(SegmentArray, np.concatenate([downsample_mode(low, factor_zyx), last], axis=axis))


def _downsample_even(labels_zyx: SegmentArray, factor_zyx: Vector) -> SegmentArray:
    """Downsample an array whose extents are multiples of the factors."""
    fz, fy, fx = factor_zyx
    first = labels_zyx[::fz, ::fy, ::fx].copy()
    is_mixed: NDArray[np.bool_] = np.zeros(first.shape, np.bool_)
    for z in range(fz):
        for y in range(fy):
            for x in range(fx):
                is_mixed |= labels_zyx[z::fz, y::fy, x::fx] != first
    if is_mixed.any():
        # Most cells lie inside one object; only those on a border need counting.
        cz, cy, cx = np.nonzero(is_mixed)
        values = np.empty((len(cz), fz * fy * fx), labels_zyx.dtype)
        for column, (z, y, x) in enumerate(np.ndindex(fz, fy, fx)):
            values[:, column] = labels_zyx[cz * fz + z, cy * fy + y, cx * fx + x]
        first[is_mixed] = _mode_of_rows(values)
    return first


def _mode_of_rows(values: SegmentArray) -> SegmentArray:
    """Give the most frequent value of every row, ties to the smallest that is not 0.

    Args:
        values: shape (rows, n); changed in place.

    Returns:
        Shape (rows,).
    """
    # One less, modulo 2^bits: background becomes the largest value, so it sorts last and loses ties.
    one = values.dtype.type(1)
    values -= one
    values.sort(axis=1)
    best = values[:, 0].copy()
    best_run = np.ones(len(values), np.int64)
    run = np.ones(len(values), np.int64)
    for column in range(1, values.shape[1]):
        same = values[:, column] == values[:, column - 1]
        run = np.where(same, run + 1, 1)
        is_better = run > best_run
        best[is_better] = values[is_better, column]
        best_run[is_better] = run[is_better]
    return best + one
