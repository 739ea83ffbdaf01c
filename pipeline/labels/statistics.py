"""Measures what is known of a label inside one block; objects are put together from it after `resolve`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.geometry import Vector
from pipeline.labels.arrays import LabelArray, ProbabilityArray, check_same_shape


class LabelTable(NamedTuple):
    """One row per label of a block, or per object of the volume; row i belongs to label i + 1."""

    voxels: NDArray[np.uint64]
    """Number of voxels, shape (n,)."""
    box_start: NDArray[np.int64]
    """First voxel of the bounding box, output lattice, shape (n, 3), zyx."""
    box_stop: NDArray[np.int64]
    """One past the last voxel of the bounding box, shape (n, 3)."""
    coordinate_sum: NDArray[np.uint64]
    """Sum of the voxels' coordinates, exact, shape (n, 3). Holds 3e14 voxels of a cube of 1e5 voxels a side."""
    probability_sum: NDArray[np.uint64]
    """Sum of the voxels' probabilities as 0..255, exact, shape (n,)."""
    has_seed: NDArray[np.bool_]
    """Whether a voxel reaches the seed threshold, shape (n,)."""


def measure_labels(
    labels_zyx: LabelArray,
    probability_zyx: ProbabilityArray,
    start: Vector,
    seed_u8: int | None = None,
) -> LabelTable:
    """Measure every label of a block's core.

    Args:
        labels_zyx: labels dense from 1, shape (z, y, x).
        probability_zyx: probabilities of the same voxels.
        start: first voxel of the core in the output lattice; not negative.
        seed_u8: probability from which on a voxel is a seed; None makes every label hold one.

    Returns:
        One row per label.

    Raises:
        OurError: the shapes differ, the core starts below zero, or the labels are not dense.
    """
    check_same_shape(labels_zyx, probability_zyx, "measuring labels")
    if min(start) < 0:
        raise OurError(f"measuring labels: a core cannot start below zero, found {start}")
    num_labels = int(labels_zyx.max(initial=0))
    if num_labels == 0:
        return empty_table(0)
    flat = labels_zyx.ravel()
    inside = np.flatnonzero(flat != 0)
    rows, values = flat[inside], probability_zyx.ravel()[inside]
    voxels = np.bincount(rows, minlength=num_labels + 1)[1:].astype(np.uint64)
    if not voxels.all():
        raise OurError(f"measuring labels: {num_labels} labels are not dense, {int((voxels == 0).sum())} are missing")
    first, last, local_sum = _measure_places(rows, inside, labels_zyx.shape, num_labels)
    origin = np.array(start, np.int64)
    return LabelTable(
        voxels=voxels,
        box_start=first + origin,
        box_stop=last + 1 + origin,
        coordinate_sum=local_sum + voxels[:, None] * origin.astype(np.uint64),
        # bincount sums in float64: exact below 2^53, and a block's sum stays below 2^8 * 2^40.
        probability_sum=np.bincount(rows, weights=values, minlength=num_labels + 1)[1:].astype(np.uint64),
        has_seed=_find_seeded(rows, values, num_labels, seed_u8),
    )


def _measure_places(
    rows: LabelArray, inside: NDArray[np.intp], shape: tuple[int, ...], num_labels: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Give first voxel, last voxel and sum of coordinates of every label, each of shape (num_labels, 3).

    Voxels of one label that follow each other along x are taken together: a run costs as much as a voxel, and objects
    have some ten times fewer runs than voxels.

    Args:
        rows: label of each voxel that has one.
        inside: where it lies, counted through the block, x fastest; ascending.
        shape: of the block.
        num_labels: labels, dense from 1.
    """
    width = shape[2]
    goes_on = (inside[1:] == inside[:-1] + 1) & (rows[1:] == rows[:-1]) & (inside[1:] % width != 0)
    begins = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(~goes_on) + 1])
    length = np.diff(begins, append=len(rows))
    line, x = np.divmod(inside[begins], width)
    z, y = np.divmod(line, shape[1])
    label = rows[begins].astype(np.intp) - 1
    order = np.argsort(label, kind="stable")
    # Every label has a voxel, so every label has a run.
    bounds = np.searchsorted(label[order], np.arange(num_labels))
    lows, highs = (z, y, x), (z, y, x + length - 1)
    first = np.stack([np.minimum.reduceat(axis[order], bounds) for axis in lows], axis=1)
    last = np.stack([np.maximum.reduceat(axis[order], bounds) for axis in highs], axis=1)
    sums = (z * length, y * length, x * length + length * (length - 1) // 2)
    total = np.stack([np.add.reduceat(axis[order], bounds) for axis in sums], axis=1)
    return first.astype(np.int64), last.astype(np.int64), total.astype(np.uint64)


def _find_seeded(rows: LabelArray, values: ProbabilityArray, num_labels: int, seed_u8: int | None) -> NDArray[np.bool_]:
    """Say for each label whether one of its voxels reaches `seed_u8`, shape (num_labels,)."""
    if seed_u8 is None:
        return np.ones(num_labels, np.bool_)
    seeded = np.zeros(num_labels + 1, np.bool_)
    seeded[rows[values >= seed_u8]] = True
    return seeded[1:]


def empty_table(num_rows: int) -> LabelTable:
    """Make the table of `num_rows` labels without a voxel: the neutral element of merging rows."""
    return LabelTable(
        voxels=np.zeros(num_rows, np.uint64),
        box_start=np.full((num_rows, 3), np.iinfo(np.int64).max, np.int64),
        box_stop=np.full((num_rows, 3), np.iinfo(np.int64).min, np.int64),
        coordinate_sum=np.zeros((num_rows, 3), np.uint64),
        probability_sum=np.zeros(num_rows, np.uint64),
        has_seed=np.zeros(num_rows, np.bool_),
    )


def merge_rows(target: LabelTable, rows: NDArray[np.int64], table: LabelTable) -> None:
    """Add a block's labels to the objects they belong to.

    Args:
        target: objects; changed in place.
        rows: the target row of each label of `table`, shape (n,).
        table: a block's labels.

    Raises:
        OurError: the number of rows is not the number of labels.
    """
    if len(rows) != len(table.voxels):
        raise OurError(f"merging labels: {len(rows)} target rows for {len(table.voxels)} labels")
    np.add.at(target.voxels, rows, table.voxels)
    np.minimum.at(target.box_start, rows, table.box_start)
    np.maximum.at(target.box_stop, rows, table.box_stop)
    np.add.at(target.coordinate_sum, rows, table.coordinate_sum)
    np.add.at(target.probability_sum, rows, table.probability_sum)
    np.logical_or.at(target.has_seed, rows, table.has_seed)


def take_rows(table: LabelTable, keep: NDArray[np.bool_]) -> LabelTable:
    """Give the rows that `keep` marks, in their order."""
    return LabelTable(
        voxels=table.voxels[keep],
        box_start=table.box_start[keep],
        box_stop=table.box_stop[keep],
        coordinate_sum=table.coordinate_sum[keep],
        probability_sum=table.probability_sum[keep],
        has_seed=table.has_seed[keep],
    )
