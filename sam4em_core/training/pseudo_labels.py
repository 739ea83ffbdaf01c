"""From what a round knows of a volume to labels that the next round learns from.

    evidence    probability per class, and where the two tracks disagree      (round 0: the two directions)
    mask        inside by probability, without specks; truth where there is some
    trusted     where the SDF track learns: not where the tracks disagree, not in the slices that are left out, nothing
                of a class that they disagree about as a whole
    labels      where the mask track learns: the trusted voxels that are not near the threshold; truth everywhere

Numbers in `SelectionConfig`. Source: Spatial-SAM (MODEL.md 3.2 of the method).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cc3d
import numpy as np

from sam4em_core.training.data import UNLABELLED

if TYPE_CHECKING:
    import numpy.typing as npt

    from sam4em_core.training.data import VoxelSize
    from sam4em_core.training.spatial_config import SelectionConfig

    Labels = npt.NDArray[np.uint8]
    Mask = npt.NDArray[np.bool_]
    PerSlice = npt.NDArray[np.float64]

_ONE = 255
# Keeps an empty slice's expected IoU at 1 instead of 0 / 0.
_SMOOTHING_VOXELS = 1.0


@dataclass(frozen=True)
class Evidence:
    """What one round knows of a volume, on the working lattice."""

    probability_czyx: Labels
    """Probability per class, 255 is 1."""
    disagrees_czyx: Mask
    """Where one track holds a voxel for inside and the other for outside."""
    agreement_z: PerSlice
    """Dice between the tracks per slice, all classes together; NaN where there is one track alone, and where none finds
    anything."""
    thresholds: tuple[float, ...]
    """Probability from which a voxel is inside, per class."""

    @property
    def inside_czyx(self) -> Mask:
        """The voxels at or above the threshold."""
        return inside_of(self.probability_czyx, self.thresholds)

    @property
    def agreement(self) -> float:
        """Mean of the slices where there is something to compare; NaN where there are none."""
        known = self.agreement_z[~np.isnan(self.agreement_z)]
        return float(known.mean()) if known.size else math.nan


@dataclass(frozen=True)
class PseudoLabels:
    """Labels of a volume that the next round learns from."""

    mask_czyx: Mask
    """Inside, the truth where it is known."""
    trusted_czyx: Mask
    """Where the SDF track learns."""
    labels_czyx: Labels
    """Where the mask track learns: 0 or 1; 255 elsewhere."""
    left_out: tuple[int, ...]
    """Slices that are not learnt from."""
    doubted: tuple[int, ...] = ()
    """Classes of which only the truth is learnt."""


def inside_of(probability_czyx: Labels, thresholds: tuple[float, ...]) -> Mask:
    """Mark the voxels at or above the threshold of their class; a probability of 0 is never inside."""
    limits = np.array([max(1, math.ceil(threshold * _ONE)) for threshold in thresholds])
    inside: Mask = probability_czyx >= limits.astype(np.uint8)[:, None, None, None]
    return inside


def compare_tracks(field_czyx: Labels, inside_czyx: Mask, band_fraction: float) -> tuple[Mask, PerSlice]:
    """Compare the signs of signed distances with a mask.

    Args:
        field_czyx: signed distance / tau as `rings.field_bytes` gives them: from 128 on inside.
        inside_czyx: the mask.
        band_fraction: they may differ this near to the surface, as a fraction of tau.

    Returns:
        Where they differ, and their Dice per slice.
    """
    signed = field_czyx >= 128
    far = np.abs(field_czyx.astype(np.float32) / 127.5 - 1) > band_fraction
    return (signed != inside_czyx) & far, dice_per_slice(signed, inside_czyx)


def dice_per_slice(one_czyx: Mask, other_czyx: Mask) -> PerSlice:
    """Dice of two masks per slice, all classes together; NaN where both are empty."""
    axes = (0, 2, 3)
    shared = np.count_nonzero(one_czyx & other_czyx, axis=axes)
    total = np.count_nonzero(one_czyx, axis=axes) + np.count_nonzero(other_czyx, axis=axes)
    result: PerSlice = np.where(total > 0, 2 * shared / np.maximum(total, 1), np.nan)
    return result


def dice_of(one: Mask, other: Mask) -> float:
    """Dice of two masks, all that they hold together; 1 where both are empty."""
    total = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / total if total else 1.0


def agreement_of_classes(evidence: Evidence) -> tuple[float, ...]:
    """Give Dice between the mask and the other track per class; surfaces that are near to each other count as one."""
    inside = evidence.inside_czyx
    other = inside ^ evidence.disagrees_czyx
    return tuple(dice_of(*pair) for pair in zip(inside, other, strict=True))


def expected_iou(evidence: Evidence) -> PerSlice:
    """Give the IoU that a slice's own probabilities expect of its mask, all classes together.

    With probabilities p that are right, the mask's intersection with the truth is the sum of p inside it, and their
    union the mask with the sum of p outside it.
    """
    axes = (0, 2, 3)
    inside = evidence.inside_czyx
    within = np.where(inside, evidence.probability_czyx, 0).sum(axis=axes, dtype=np.int64) / _ONE
    outside = np.where(inside, 0, evidence.probability_czyx).sum(axis=axes, dtype=np.int64) / _ONE
    size = np.count_nonzero(inside, axis=axes)
    result: PerSlice = (within + _SMOOTHING_VOXELS) / (size + outside + _SMOOTHING_VOXELS)
    return result


def slice_quality(evidence: Evidence) -> PerSlice:
    """Rank slices: the IoU that is expected times the agreement of the tracks, in [0, 1].

    A slice where nothing can be compared counts as agreeing as well as the others do on average.
    """
    usual = evidence.agreement
    agreement = np.nan_to_num(evidence.agreement_z, nan=1.0 if math.isnan(usual) else usual)
    result: PerSlice = expected_iou(evidence) * agreement
    return result


def select(
    evidence: Evidence, truth_czyx: Labels, config: SelectionConfig, spacing_nm: VoxelSize, *, is_first: bool
) -> PseudoLabels:
    """Choose what the next round learns from.

    Args:
        evidence: of the round before.
        truth_czyx: 0, 1, or 255 where there is none.
        config: how to choose.
        spacing_nm: voxel size.
        is_first: whether the next round is round 1.
    """
    known = truth_czyx != UNLABELLED
    mask = without_specks(evidence.inside_czyx, math.ceil(config.min_speck_nm3 / math.prod(spacing_nm)))
    mask = np.where(known, truth_czyx == 1, mask)
    left_out = _worst_slices(evidence, known, config.leave_out_first if is_first else config.leave_out_later)
    trusted = ~evidence.disagrees_czyx
    trusted[:, list(left_out)] = False
    # What is left of such a class would be its background alone.
    doubted = tuple(k for k, dice in enumerate(agreement_of_classes(evidence)) if dice < config.min_agreement)
    trusted[list(doubted)] = False
    limits = np.array(evidence.thresholds, np.float32)[:, None, None, None] * _ONE
    near = np.abs(evidence.probability_czyx.astype(np.float32) - limits) < config.uncertain * _ONE
    labels = np.where(trusted & ~near, mask, np.uint8(UNLABELLED)).astype(np.uint8)
    labels[known] = truth_czyx[known]
    return PseudoLabels(mask, trusted | known, labels, left_out, doubted)


def _worst_slices(evidence: Evidence, known_czyx: Mask, share: float) -> tuple[int, ...]:
    """List the worst of the slices without truth, ascending."""
    unlabelled = np.flatnonzero(~known_czyx.any(axis=(0, 2, 3)))
    count = int(share * unlabelled.size)
    order = np.argsort(slice_quality(evidence)[unlabelled], kind="stable")
    return tuple(sorted(unlabelled[order[:count]].tolist()))


def without_specks(mask_czyx: Mask, min_voxels: int) -> Mask:
    """Remove objects (26-connected) of fewer voxels."""
    if min_voxels <= 1:
        return mask_czyx.copy()
    return np.stack(
        [cc3d.dust(channel, threshold=min_voxels, connectivity=26, in_place=False) != 0 for channel in mask_czyx]
    )


def loss_weight(round_index: int, rounds: int, config: SelectionConfig) -> float:
    """Give what pseudo-labels weigh in a round: from `weight_first` in round 1 to `weight_last` in the last."""
    part = (round_index - 1) / (rounds - 1) if rounds > 1 else 0.0
    return config.weight_first + part * (config.weight_last - config.weight_first)


def smoothed_disagreement(probability_czyx: Labels, thresholds: tuple[float, ...]) -> tuple[Mask, PerSlice]:
    """Compare every slice with the mean of three neighboring slices.

    Returns:
        Where they differ, and their Dice per slice.
    """
    padded = np.pad(probability_czyx.astype(np.float32), [(0, 0), (1, 1), (0, 0), (0, 0)], mode="edge")
    smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    limits = np.array(thresholds, np.float32)[:, None, None, None] * _ONE
    one, other = probability_czyx >= limits, smooth >= limits
    return one != other, dice_per_slice(one, other)
