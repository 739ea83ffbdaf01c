"""What the two tracks of a round train on, and how its pseudo-labels compare with truth that nothing learns from."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.fields import UNKNOWN, true_field
from sam4em_core.training.pseudo_labels import dice_of, dice_per_slice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from sam4em_core.training.data import TrainingVolume
    from sam4em_core.training.pseudo_labels import PseudoLabels
    from sam4em_core.training.subjects import Subject


def sdf_volumes(subjects: Sequence[Subject], labels: Mapping[str, PseudoLabels], tau_nm: float) -> list[TrainingVolume]:
    """Give the SDF track's volumes: distances of whole masks, unknown where they are not trusted.

    Args:
        subjects: the volumes.
        labels: of each, by name.
        tau_nm: distances are cut off here.
    """
    return [_with_field(subject, labels[subject.name], tau_nm) for subject in subjects]


def _with_field(subject: Subject, labels: PseudoLabels, tau_nm: float) -> TrainingVolume:
    everywhere = np.ones(subject.image_zyx.shape, bool)
    field = np.stack([true_field(mask, everywhere, subject.voxel_size_zyx_nm, tau_nm) for mask in labels.mask_czyx])
    field[~labels.trusted_czyx] = UNKNOWN
    volume = subject.as_volume(subject.name, np.where(labels.trusted_czyx, labels.mask_czyx, np.uint8(UNLABELLED)))
    return replace(volume, field_czyx=field)


def mask_volumes(
    subjects: Sequence[Subject], labels: Mapping[str, PseudoLabels], weight: float, truth_share: float
) -> list[TrainingVolume]:
    """Give the mask track's volumes: every volume with its pseudo-labels, and the labelled ones with truth alone.

    Args:
        subjects: the volumes.
        labels: of each, by name.
        weight: what a window of pseudo-labels weighs.
        truth_share: share of the windows that come from the volumes with truth alone.
    """
    volumes = [
        replace(subject.as_volume(subject.name, labels[subject.name].labels_czyx), loss_share=weight)
        for subject in subjects
    ]
    sparse = [subject for subject in subjects if subject.labelled]
    for subject in sparse if truth_share else ():
        truth = subject.as_volume(f"{subject.name}, truth", subject.truth_czyx)
        volumes.append(replace(truth, draw_share=truth_share / len(sparse)))
    return volumes


def hidden_scores(subject: Subject, inside_czyx: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Score the unlabelled slices by the truth that nothing learns from."""
    if subject.hidden_czyx is None:
        return {}
    counted = (subject.hidden_czyx != UNLABELLED) & (subject.truth_czyx == UNLABELLED)
    truth, found = (subject.hidden_czyx == 1) & counted, inside_czyx & counted
    dice = dice_of(found, truth)
    return {"dice": round(dice, 5), "dice_by_slice": rounded(dice_per_slice(found, truth))}


def rounded(values: npt.NDArray[np.float64]) -> list[float | None]:
    """Round numbers for a file; NaN becomes null."""
    return [None if math.isnan(value) else round(float(value), 5) for value in values]
