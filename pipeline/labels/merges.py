"""Decides which overlaps mean "these two are one object".

The rule follows the instance method: components are merged by any shared voxel, which is exact; after a
watershed that would undo every cut that a slab crosses, so there the overlap itself must be large. What a user
orders for a pair of labels comes before the rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.labels.overlaps import OverlapTable

_LABEL_BITS = np.uint64(32)


class MergeKind(StrEnum):
    """What is asked of two labels before they are one object."""

    ANY = "any"
    """A shared voxel."""
    IOU = "iou"
    """Enough intersection over union within the slab."""


class Reason(IntEnum):
    """Why a pair was accepted or refused."""

    SHARED = 0
    """Accepted: they share a voxel, and that is enough."""
    OVERLAP = 1
    """Accepted: their overlap reaches the threshold."""
    BELOW = 2
    """Refused: their overlap does not reach the threshold."""
    VETO = 3
    """Refused: a user's veto."""
    FORCED = 4
    """Accepted: a user's order."""


REASON_TEXTS = ("shared voxel", "overlap", "below min_iou", "veto", "forced")
"""What a table says for each `Reason`, in their order."""


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


class MergeOrders(NamedTuple):
    """What a user has ordered for pairs of labels of one face, one row per pair."""

    lower: NDArray[np.uint64]
    """Label in the lower block."""
    upper: NDArray[np.uint64]
    """Label in the upper block."""
    merge: NDArray[np.bool_]
    """True: they are one object; False: they are not."""


class ScoredEdges(NamedTuple):
    """The rows of an overlap table, judged."""

    score: NDArray[np.float32]
    """Intersection over union within the slab, 0..1."""
    accepted: NDArray[np.bool_]
    """The two labels are one object."""
    near_miss: NDArray[np.bool_]
    """Refused by the rule, but not by much."""
    reason: NDArray[np.uint8]
    """Why: a `Reason`."""


def accept_edges(table: OverlapTable, rule: MergeRule, orders: MergeOrders | None = None) -> ScoredEdges:
    """Judge every pair of labels that shares a voxel.

    Args:
        table: the pairs of one slab, or of many.
        rule: what is asked of them.
        orders: what a user has ordered for some of them; only with the pairs of one slab.

    Returns:
        One row per pair, in the table's order.
    """
    union = table.lower_voxels + table.upper_voxels - table.num_voxels
    iou = table.num_voxels.astype(np.float64) / union.astype(np.float64)
    accepted = table.num_voxels > 0 if rule.kind is MergeKind.ANY else iou >= rule.min_iou
    near_miss = ~accepted & (iou >= rule.near_miss_fraction * rule.min_iou)
    taken = Reason.SHARED if rule.kind is MergeKind.ANY else Reason.OVERLAP
    reason = np.where(accepted, np.uint8(taken), np.uint8(Reason.BELOW))
    if orders is not None and len(orders.lower):
        rows, merge = _ordered_rows(table, orders)
        accepted[rows] = merge
        near_miss[rows] = False
        reason[rows] = np.where(merge, np.uint8(Reason.FORCED), np.uint8(Reason.VETO))
    return ScoredEdges(iou.astype(np.float32), accepted, near_miss, reason)


def _ordered_rows(table: OverlapTable, orders: MergeOrders) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find the rows that orders are about, and what they order; a veto wins over an order to merge."""
    # Labels are local to a block and fit 32 bits, so a pair fits 64.
    keys = (table.lower << _LABEL_BITS) | table.upper
    wanted = (orders.lower << _LABEL_BITS) | orders.upper
    ordered = np.lexsort((orders.merge, wanted))
    first = np.flatnonzero(np.diff(wanted[ordered], prepend=wanted[ordered[:1]] + np.uint64(1)))
    chosen = ordered[first]
    rows = np.searchsorted(wanted[chosen], keys)
    found = rows < len(chosen)
    found[found] = wanted[chosen][rows[found]] == keys[found]
    return np.flatnonzero(found), orders.merge[chosen][rows[found]]
