"""Measures what is left of a seam: voxels of a slab that the two blocks still see differently when all is merged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.labels.arrays import SegmentArray
from pipeline.labels.overlaps import OneSided, OverlapTable


class Mismatch(NamedTuple):
    """One slab, of one class."""

    num_labelled: int
    """Voxels that one of the two gives to an object that crosses the face and stays."""
    num_mismatched: int
    """Of those, the voxels to which the two give different ids; background is one."""


def count_mismatch(
    table: OverlapTable, one_sided: OneSided, lower_ids: SegmentArray, upper_ids: SegmentArray
) -> Mismatch:
    """Count the voxels of a slab about which two neighbours disagree.

    Args:
        table: pairs of labels.
        one_sided: labels that cross the face where the other sees background.
        lower_ids: id of each label of the lower block, shape (n + 1,): entry 0 is background, 0 is dropped.
        upper_ids: the same of the upper block.
    """
    lower, upper = lower_ids[table.lower], upper_ids[table.upper]
    shown = (lower != 0) | (upper != 0)
    apart = lower != upper
    alone = _total(one_sided.lower_only_voxels, lower_ids[one_sided.lower_only] != 0)
    alone += _total(one_sided.upper_only_voxels, upper_ids[one_sided.upper_only] != 0)
    return Mismatch(_total(table.num_voxels, shown) + alone, _total(table.num_voxels, apart) + alone)


def _total(voxels: SegmentArray, chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    return int(voxels[chosen].sum(dtype=np.uint64))
