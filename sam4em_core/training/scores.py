"""Scores from counts over whole volumes, and the threshold that scores best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt


@dataclass(frozen=True)
class OverlapCounts:
    """Labelled voxels by prediction and truth."""

    true_positive: int = 0
    """Inside both."""
    false_positive: int = 0
    """Inside the prediction alone."""
    false_negative: int = 0
    """Inside the truth alone."""

    def __add__(self, other: OverlapCounts) -> OverlapCounts:
        """Count two volumes as one."""
        return OverlapCounts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def iou(self) -> float:
        """Intersection over union; 1 where both are empty."""
        union = self.true_positive + self.false_positive + self.false_negative
        return self.true_positive / union if union else 1.0

    @property
    def dice(self) -> float:
        """Twice the intersection over the sum of both; 1 where both are empty."""
        total = 2 * self.true_positive + self.false_positive + self.false_negative
        return 2 * self.true_positive / total if total else 1.0


@dataclass(frozen=True)
class ClassScore:
    """The best threshold of a class and what it scores."""

    threshold: float
    """Probability from which a voxel is inside."""
    iou: float
    """Intersection over union of all choose slices together."""
    dice: float
    """Dice of all choose slices together."""
    has_truth: bool
    """Whether the choose slices hold a labelled voxel of the class or a prediction of it."""


def count_overlap(
    probability_zyx: npt.NDArray[np.float32],
    truth_zyx: npt.NDArray[np.uint8],
    threshold: float,
    unlabelled: int,
) -> OverlapCounts:
    """Count one class at one threshold; unlabelled voxels are left out.

    Args:
        probability_zyx: in [0, 1].
        truth_zyx: 0, 1, or `unlabelled`; the same shape.
        threshold: a voxel at or above it is inside.
        unlabelled: label of voxels whose truth is unknown.
    """
    inside = probability_zyx >= threshold
    truth = truth_zyx == 1
    known = truth_zyx != unlabelled
    return OverlapCounts(
        int(np.count_nonzero(inside & truth)),
        int(np.count_nonzero(inside & ~truth & known)),
        int(np.count_nonzero(~inside & truth)),
    )


def best_threshold(thresholds: Sequence[float], counts: Sequence[OverlapCounts]) -> ClassScore:
    """Choose the threshold with the highest intersection over union; the one nearest 0.5 among equals."""
    ranked = sorted(zip(thresholds, counts, strict=True), key=lambda pair: (-pair[1].iou, abs(pair[0] - 0.5)))
    threshold, best = ranked[0]
    has_truth = any(item.true_positive + item.false_negative for item in counts)
    return ClassScore(threshold, best.iou, best.dice, has_truth)
