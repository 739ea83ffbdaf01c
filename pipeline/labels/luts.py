"""Turns labels of a block into ids of the volume."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.labels.arrays import LabelArray, SegmentArray, check_unsigned

_Id = TypeVar("_Id", np.uint32, np.uint64)


def apply_lut(labels_zyx: LabelArray, lut: SegmentArray) -> SegmentArray:
    """Look every label up.

    Args:
        labels_zyx: labels of one block, shape (z, y, x).
        lut: id of each label, shape (n + 1,): entry 0 is 0, and a removed label has entry 0.

    Returns:
        Ids, same shape.

    Raises:
        OurError: a label has no entry, the map does not keep background, or a type is not unsigned.
    """
    check_unsigned(labels_zyx, "looking labels up")
    check_unsigned(lut, "looking labels up, map")
    if len(lut) == 0 or lut[0] != 0:
        raise OurError("looking labels up: the map must give background for background")
    largest = int(labels_zyx.max(initial=0))
    if largest >= len(lut):
        raise OurError(f"looking labels up: label {largest} has no entry in a map of {len(lut) - 1} labels")
    if largest == 0:
        return np.zeros(labels_zyx.shape, np.uint64)
    return take_labels(lut.astype(np.uint64, copy=False), labels_zyx)


def take_labels(lut: NDArray[_Id], labels_zyx: LabelArray) -> NDArray[_Id]:
    """Give `lut[labels_zyx]`, slice by slice: the int64 that NumPy makes of every label then stay in the cache.

    Args:
        lut: one entry per label.
        labels_zyx: labels that all have an entry, shape (z, y, x).

    Returns:
        Entries, shape of the labels and type of the map.
    """
    found_zyx = np.empty(labels_zyx.shape, lut.dtype)
    for found, labels in zip(found_zyx, labels_zyx, strict=True):
        np.take(lut, labels.astype(np.intp), out=found, mode="clip")
    return found_zyx


def compact_core(labels_zyx: LabelArray, core: tuple[slice, slice, slice]) -> LabelArray:
    """Make the map that numbers a block's core densely.

    Args:
        labels_zyx: labels of core and halo, dense from 1, shape (z, y, x).
        core: where the core lies in it.

    Returns:
        Shape (m + 1,): the new label of every old one, dense from 1 in the old order; 0 for labels that live
        in the halo alone.
    """
    present: NDArray[np.bool_] = np.zeros(int(labels_zyx.max(initial=0)) + 1, np.bool_)
    for inside in labels_zyx[core]:
        # Most voxels are background, and writing to a place costs more than leaving a voxel out.
        present[inside[inside != 0]] = True
    lut = np.zeros(len(present), np.uint32)
    lut[present] = np.arange(1, int(np.count_nonzero(present)) + 1, dtype=np.uint32)
    return lut


def mark_foreign(lut: LabelArray) -> LabelArray:
    """Give the labels that live in the halo alone a label of their own, in place of background.

    Args:
        lut: see `compact_core`: dense from 1, 0 for labels of the halo; entry 0 is background.

    Returns:
        Same shape: m + 1 in place of 0, but for entry 0.
    """
    marked = lut.copy()
    marked[1:][lut[1:] == 0] = lut.max(initial=0) + 1
    return marked
