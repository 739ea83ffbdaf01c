"""Scores of a segmentation against the truth, from counts alone: nothing here has seen a volume.

Tables have the prediction on the left and the truth on the right. A score whose denominator is zero is None.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import OurError
from pipeline.labels.contingency import CountArray, PairTable

RESOLUTION_NM = 0.01
"""Surface distances are counted in bins of this width."""


@dataclass(frozen=True)
class BinaryScores:
    """Overlap of two masks, from volume counts."""

    true_positive: int
    """Voxels in both."""
    false_positive: int
    """Voxels in the prediction only."""
    false_negative: int
    """Voxels in the truth only."""

    def __add__(self, other: BinaryScores) -> BinaryScores:
        """Add the counts of disjoint voxels."""
        return BinaryScores(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def dice(self) -> float | None:
        """2 TP / (2 TP + FP + FN)."""
        return _ratio(2 * self.true_positive, 2 * self.true_positive + self.false_positive + self.false_negative)

    @property
    def iou(self) -> float | None:
        """TP / (TP + FP + FN)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float | None:
        """TP / (TP + FP)."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """TP / (TP + FN)."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)


def _ratio(numerator: int, denominator: int) -> float | None:
    return numerator / denominator if denominator else None


def binary_scores(prediction: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> BinaryScores:
    """Count the voxels of two masks of the same shape."""
    both = int(np.count_nonzero(prediction & truth))
    return BinaryScores(both, int(np.count_nonzero(prediction)) - both, int(np.count_nonzero(truth)) - both)


@dataclass(frozen=True)
class DetectionScores:
    """Instances found at one IoU threshold."""

    threshold_percent: int
    """A predicted and a true object match where their IoU is above this."""
    true_positive: int
    """Matched pairs."""
    false_positive: int
    """Predicted objects without a match."""
    false_negative: int
    """True objects without a match."""

    @property
    def average_precision(self) -> float | None:
        """TP / (TP + FP + FN).

        Source: Data Science Bowl 2018 and StarDist (Schmidt et al. 2018, arXiv 1806.03535, section 3), which
        call this AP. It needs no confidence, unlike the area under a precision-recall curve (COCO).
        """
        return _ratio(self.true_positive, self.true_positive + self.false_positive + self.false_negative)

    @property
    def precision(self) -> float | None:
        """Share of the predicted objects that match."""
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def recall(self) -> float | None:
        """Share of the true objects that are matched."""
        return _ratio(self.true_positive, self.true_positive + self.false_negative)


def detection_scores(table: PairTable, threshold_percent: int) -> DetectionScores:
    """Match predicted and true objects at an IoU threshold of 50 % or more.

    Strictly above one half an object can have one partner at most, so no assignment problem is left.

    Raises:
        OurError: the threshold is below 50 %, where matches are not unique, or not below 100 %.
    """
    if not 50 <= threshold_percent < 100:
        raise OurError(f"detection scores: threshold {threshold_percent} % must lie in 50..99")
    pred_ids, pred_sizes = table.left_sizes()
    true_ids, true_sizes = table.right_sizes()
    pairs = table.select((table.left != 0) & (table.right != 0))
    union = pred_sizes[np.searchsorted(pred_ids, pairs.left)] + true_sizes[np.searchsorted(true_ids, pairs.right)]
    union -= pairs.num_voxels
    matches = int(np.count_nonzero(pairs.num_voxels * 100 > union * threshold_percent))
    num_pred = int(np.count_nonzero(pred_ids))
    num_true = int(np.count_nonzero(true_ids))
    return DetectionScores(threshold_percent, matches, num_pred - matches, num_true - matches)


@dataclass(frozen=True)
class Variation:
    """Variation of information in bits."""

    split: float
    """H(prediction | truth): true objects cut into pieces."""
    merge: float
    """H(truth | prediction): true objects fused."""


def _without_background(table: PairTable, ignore_truth_background: bool) -> PairTable:
    """Drop the voxels outside all true objects, as CREMI does; background of the prediction stays a label."""
    return table.select(table.right != 0) if ignore_truth_background else table


def variation_of_information(table: PairTable, *, ignore_truth_background: bool = True) -> Variation | None:
    """Compare two segmentations by conditional entropies.

    Args:
        table: prediction on the left, truth on the right.
        ignore_truth_background: leave out voxels whose truth is 0. A predicted 0 is a label in any case.

    Returns:
        Bits; None where no voxel is left.

    Source: Meila 2007, doi 10.1016/j.jmva.2006.11.013; equal to skimage.metrics.variation_of_information.
    """
    kept = _without_background(table, ignore_truth_background)
    total = int(kept.num_voxels.sum())
    if not total:
        return None
    joint = _entropy(kept.num_voxels, total)
    pred = _entropy(kept.left_sizes()[1], total)
    true = _entropy(kept.right_sizes()[1], total)
    return Variation(max(joint - true, 0.0), max(joint - pred, 0.0))


def _entropy(counts: CountArray, total: int) -> float:
    """Entropy in bits of a histogram that sums to `total`."""
    share = counts / total
    return float(-(share * np.log2(share)).sum())


@dataclass(frozen=True)
class AdaptedRand:
    """Adapted Rand error with its two parts."""

    error: float
    """1 - harmonic mean of precision and recall; 0 is perfect."""
    precision: float
    """Of the voxel pairs joined by the prediction, the share joined in truth."""
    recall: float
    """Of the voxel pairs joined in truth, the share joined by the prediction."""


def adapted_rand(table: PairTable, *, ignore_truth_background: bool = True) -> AdaptedRand | None:
    """Compare two segmentations by the pairs of voxels they join.

    Args:
        table: prediction on the left, truth on the right.
        ignore_truth_background: leave out voxels whose truth is 0.

    Returns:
        None where a side joins no two voxels.

    Source: SNEMI3D / CREMI. The error equals skimage.metrics.adapted_rand_error; scikit-image 0.26 returns
    the other two in the opposite order of its documentation.
    """
    kept = _without_background(table, ignore_truth_background)
    total = int(kept.num_voxels.sum())
    joint = _num_pairs(kept.num_voxels, total)
    pred = _num_pairs(kept.left_sizes()[1], total)
    true = _num_pairs(kept.right_sizes()[1], total)
    if pred <= 0 or true <= 0:
        return None
    precision, recall = joint / pred, joint / true
    error = 1.0 - 2.0 * joint / (pred + true)
    return AdaptedRand(error, precision, recall)


def _num_pairs(counts: CountArray, total: int) -> int:
    """Twice the number of voxel pairs inside groups, exact: Python integers have no limit."""
    return sum(int(count) * int(count) for count in counts) - total


@dataclass(frozen=True)
class DistanceHistogram:
    """Surface distances counted exactly in bins of `RESOLUTION_NM`; adding histograms loses nothing."""

    cap_nm: float
    """Distances from here on are counted in the last bin."""
    counts: CountArray
    """Shape (cap / resolution + 2,): one bin per multiple of the resolution, then "at least the cap"."""

    @classmethod
    def empty(cls, cap_nm: float) -> DistanceHistogram:
        """The histogram of no distances."""
        return cls(cap_nm, np.zeros(round(cap_nm / RESOLUTION_NM) + 2, np.int64))

    def plus(self, distances_nm: npt.NDArray[np.floating], num_beyond: int = 0) -> DistanceHistogram:
        """Count more distances, and some that are known only to be beyond the cap."""
        bins = np.rint(distances_nm.astype(np.float64) / RESOLUTION_NM)
        last = len(self.counts) - 1
        bins = np.where(distances_nm > self.cap_nm, last, np.minimum(bins, last)).astype(np.int64)
        counts = self.counts + np.bincount(bins, minlength=last + 1)
        counts[last] += num_beyond
        return DistanceHistogram(self.cap_nm, counts)

    def percentile_nm(self, percent: float) -> float | None:
        """Give a percentile, linear between ranks as numpy's; infinity beyond the cap; None where empty."""
        total = int(self.counts.sum())
        if not total:
            return None
        rank = (total - 1) * percent / 100.0
        ends = np.cumsum(self.counts)
        low = int(np.searchsorted(ends, int(rank), side="right"))
        high = int(np.searchsorted(ends, min(int(rank) + 1, total - 1), side="right"))
        part = rank - int(rank)
        last = len(self.counts) - 1
        if low == last or (high == last and part > 0):
            return float("inf")
        return (low + (high - low) * part) * RESOLUTION_NM


@dataclass(frozen=True)
class SurfaceScore:
    """95th percentile Hausdorff distance."""

    hd95_nm: float
    """The larger of the two directed percentiles; the cap where it lies beyond."""
    at_least: bool
    """True: the distance is the cap or more."""


def hausdorff_95(to_truth: DistanceHistogram, to_prediction: DistanceHistogram) -> SurfaceScore | None:
    """Take the larger of the two directed 95th percentiles, as MONAI's compute_hausdorff_distance.

    Returns:
        None where both masks are empty. One empty mask is "at least the cap".
    """
    values = [to_truth.percentile_nm(95.0), to_prediction.percentile_nm(95.0)]
    if values == [None, None]:
        return None
    worst = max(float("inf") if value is None else value for value in values)
    if worst == float("inf"):
        return SurfaceScore(to_truth.cap_nm, True)
    return SurfaceScore(worst, False)
