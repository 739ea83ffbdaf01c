"""Decides which overlaps mean "these two are one object".

The rule follows the instance method: components are merged by any shared voxel, which is exact; after a
watershed that would undo every cut that a slab crosses, so there the overlap itself must be large.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.labels.overlaps import OverlapTable


class MergeKind(StrEnum):
    """What is asked of two labels before they are one object."""

    ANY = "any"
    """A shared voxel."""
    IOU = "iou"
    """Enough intersection over union within the slab."""


@dataclass(frozen=True)
class MergeRule:
    """When two labels of neighbours are one object."""

    kind: MergeKind
    """What is asked of them."""
    min_iou: float = 0.5
    """Lowest intersection over union that merges, in (0, 1]; unused by `any`."""
    near_miss_fraction: float = 0.5
    """A refused pair is a near miss from this share of `min_iou` on."""

    def __post_init__(self) -> None:
        """Refuse thresholds that merge everything or nothing.

        Raises:
            OurError: `min_iou` lies outside (0, 1].
        """
        if not 0 < self.min_iou <= 1:
            raise OurError(f"merge rule: min_iou must lie in (0, 1], found {self.min_iou}")


class ScoredEdges(NamedTuple):
    """The rows of an overlap table, judged."""

    score: NDArray[np.float32]
    """Intersection over union within the slab, 0..1."""
    accepted: NDArray[np.bool_]
    """The two labels are one object."""
    near_miss: NDArray[np.bool_]
    """Refused, but not by much."""


def accept_edges(table: OverlapTable, rule: MergeRule) -> ScoredEdges:
    """Judge every pair of labels that shares a voxel.

    Args:
        table: the pairs of one slab, or of many.
        rule: what is asked of them.

    Returns:
        One row per pair, in the table's order.
    """
    union = table.lower_voxels + table.upper_voxels - table.num_voxels
    iou = table.num_voxels.astype(np.float64) / union.astype(np.float64)
    accepted = table.num_voxels > 0 if rule.kind is MergeKind.ANY else iou >= rule.min_iou
    near_miss = ~accepted & (iou >= rule.near_miss_fraction * rule.min_iou)
    return ScoredEdges(score=iou.astype(np.float32), accepted=accepted, near_miss=near_miss)
