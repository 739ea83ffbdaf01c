"""Measures what is left of a seam: voxels of a slab that the two blocks still see differently when all is merged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.labels.arrays import AnyLabelArray, MaskArray, SegmentArray
from pipeline.labels.overlaps import OneSided, OverlapTable


class Mismatch(NamedTuple):
    """One slab, of one class."""

    num_labelled: int
    """Voxels that both know and one of them gives to an object that stays."""
    num_mismatched: int
    """Of those, the voxels to which the two give different ids; background is one."""


def count_mismatch(
    table: OverlapTable, one_sided: OneSided, lower_ids: SegmentArray, upper_ids: SegmentArray
) -> Mismatch:
    """Count the voxels of a slab about which two neighbours disagree.

    Args:
        table: pairs of labels.
        one_sided: labels where the other sees background.
        lower_ids: id of each label of the lower block, shape (n + 1,): entry 0 is background, 0 is dropped.
        upper_ids: the same of the upper block.
    """
    lower, upper = lower_ids[table.lower], upper_ids[table.upper]
    shown = (lower != 0) | (upper != 0)
    apart = lower != upper
    alone = _total(one_sided.lower_only_voxels, lower_ids[one_sided.lower_only] != 0)
    alone += _total(one_sided.upper_only_voxels, upper_ids[one_sided.upper_only] != 0)
    return Mismatch(_total(table.num_voxels, shown) + alone, _total(table.num_voxels, apart) + alone)


def find_mismatch(
    lower_zyx: AnyLabelArray, upper_zyx: AnyLabelArray, lower_ids: SegmentArray, upper_ids: SegmentArray
) -> MaskArray:
    """Mark the voxels that `count_mismatch` counts.

    Args:
        lower_zyx: labels of the lower block in the slab, shape (z, y, x); one beyond its last label is foreign.
        upper_zyx: labels of the upper block, same shape.
        lower_ids: id of each label of the lower block, shape (n + 1,): entry 0 is background.
        upper_ids: the same of the upper block.

    Returns:
        Shape (z, y, x).
    """
    is_known = (lower_zyx < len(lower_ids)) & (upper_zyx < len(upper_ids))
    mask: MaskArray = np.zeros(lower_zyx.shape, np.bool_)
    mask[is_known] = lower_ids[lower_zyx[is_known]] != upper_ids[upper_zyx[is_known]]
    return mask


def find_ids(labels_zyx: AnyLabelArray, ids: SegmentArray) -> SegmentArray:
    """Look the ids of a slab up; what is foreign to its block is background."""
    return np.append(ids, np.uint64(0))[np.minimum(labels_zyx, np.uint64(len(ids)))]


def _total(voxels: SegmentArray, chosen: MaskArray) -> int:
    return int(voxels[chosen].sum(dtype=np.uint64))
