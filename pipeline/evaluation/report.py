"""The result of one evaluation, and its plain form for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation.placement import Nanometers
from pipeline.geometry import Box
from pipeline.labels.scores import AdaptedRand, BinaryScores, DetectionScores, SurfaceScore, Variation


@dataclass(frozen=True)
class InstanceScores:
    """Scores that need the true objects to be told apart."""

    ap50: DetectionScores
    """Objects found at IoU > 0.5."""
    ap75: DetectionScores
    """Objects found at IoU > 0.75."""
    variation: Variation | None
    """Variation of information; None where nothing is left to compare."""
    rand: AdaptedRand | None
    """Adapted Rand error; None where a side joins no two voxels."""
    ignored_truth_background: bool
    """Whether `variation` and `rand` leave out the voxels whose truth is 0 (as CREMI does)."""


@dataclass(frozen=True)
class Scores:
    """The result of one evaluation."""

    roi: Box
    """What was compared, in voxels of the common grid."""
    voxel_size_zyx_nm: Nanometers | None
    """Voxel size of the common grid; None where unknown."""
    binary: BinaryScores
    """Overlap of "any object"."""
    surface: SurfaceScore | None
    """HD95; None where the voxel size is unknown or both masks are empty."""
    hd95_cap_nm: float
    """Largest distance measured."""
    instances: InstanceScores | None
    """None where the truth has no instances; `instances_absent` says why."""
    instances_absent: str | None
    """Why there are no instance scores."""
    num_predicted: int
    """Predicted ids."""
    num_true: int
    """True ids."""

    def as_dict(self) -> dict[str, Any]:
        """Give plain numbers, strings and lists, for JSON. A score that is not defined is None.

        `hd95` is HD95 in words, `>= 1000 nm` beyond the cap; there `hd95_nm` is the cap and `hd95_at_least` true.
        """
        counts = self.binary
        result: dict[str, Any] = {
            "roi_zyx": [list(self.roi.start), list(self.roi.stop)],
            "voxel_size_zyx_nm": None if self.voxel_size_zyx_nm is None else list(self.voxel_size_zyx_nm),
            "voxels": self.roi.num_voxels,
            "true_positive_voxels": counts.true_positive,
            "false_positive_voxels": counts.false_positive,
            "false_negative_voxels": counts.false_negative,
            "dice": counts.dice,
            "iou": counts.iou,
            "precision": counts.precision,
            "recall": counts.recall,
            "hd95": None if self.surface is None else _distance(self.surface),
            "hd95_nm": None if self.surface is None else self.surface.hd95_nm,
            "hd95_at_least": None if self.surface is None else self.surface.at_least,
            "hd95_cap_nm": self.hd95_cap_nm,
            "num_predicted": self.num_predicted,
            "num_true": self.num_true,
            "instances": None if self.instances is None else _instance_dict(self.instances),
            "instances_absent": self.instances_absent,
        }
        return result


def shown_scores(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of `Scores.as_dict` what a table shows: of HD95 its text alone: a cap must not look like a distance."""
    return {name: value for name, value in scores.items() if not name.startswith("hd95_")}


def _distance(surface: SurfaceScore) -> str:
    """Write a distance, or that it is the cap or more."""
    return f"{'>= ' if surface.at_least else ''}{surface.hd95_nm:g} nm"


def _instance_dict(scores: InstanceScores) -> dict[str, Any]:
    """Plain numbers of the instance scores."""
    result: dict[str, Any] = {"ignored_truth_background": scores.ignored_truth_background}
    for name, found in (("50", scores.ap50), ("75", scores.ap75)):
        result[f"ap{name}"] = found.average_precision
        result[f"precision{name}"] = found.precision
        result[f"recall{name}"] = found.recall
        result[f"matched{name}"] = found.true_positive
    result["voi_split_bits"] = None if scores.variation is None else scores.variation.split
    result["voi_merge_bits"] = None if scores.variation is None else scores.variation.merge
    result["adapted_rand_error"] = None if scores.rand is None else scores.rand.error
    result["adapted_rand_precision"] = None if scores.rand is None else scores.rand.precision
    result["adapted_rand_recall"] = None if scores.rand is None else scores.rand.recall
    return result
