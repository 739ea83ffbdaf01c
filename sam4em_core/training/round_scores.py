"""How good a round is, whether there is anything to learn from it, and whether another one would bring anything."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sam4em_core.training.errors import TrainingStopped
from sam4em_core.training.pseudo_labels import dice_of, dice_per_slice
from sam4em_core.training.round_data import hidden_scores, rounded
from sam4em_core.training.tracks import best_dice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sam4em_core.training.pseudo_labels import Evidence, PseudoLabels
    from sam4em_core.training.spatial_config import StopConfig
    from sam4em_core.training.subjects import Subject

    Scores = dict[str, Any]

logger = logging.getLogger(__name__)


def score_round(
    subjects: Sequence[Subject], checkpoint: Path, evidence: Mapping[str, Evidence], before: Mapping[str, Evidence]
) -> Scores:
    """Score what a round knows of its volumes.

    Args:
        subjects: the volumes.
        checkpoint: the round's network.
        evidence: of every volume, by name.
        before: of the round before; empty for round 0.

    Returns:
        `choose_dice`, `agreement` of the tracks, `change` since the round before (None where there is no such thing),
        and per volume its foreground, change per slice, and Dice by hidden truth.
    """
    dice = best_dice(checkpoint)
    known = [item.agreement for item in evidence.values() if not math.isnan(item.agreement)]
    volumes: dict[str, Scores] = {}
    changes = []
    for subject in subjects:
        inside = evidence[subject.name].inside_czyx
        volume: Scores = {"foreground_fraction": round(float(inside.mean()), 5)}
        if subject.name in before:
            earlier = before[subject.name].inside_czyx
            changes.append(1 - dice_of(inside, earlier))
            volume["change_by_slice"] = rounded(1 - dice_per_slice(inside, earlier))
        volumes[subject.name] = {**volume, **hidden_scores(subject, inside)}
    return {
        "choose_dice": None if dice is None else round(dice, 5),
        "agreement": round(float(np.mean(known)), 5) if known else None,
        "change": round(float(np.mean(changes)), 5) if changes else None,
        "volumes": volumes,
    }


def classes_left_out(index: int, labels: Mapping[str, PseudoLabels], classes: Sequence[str]) -> dict[str, list[str]]:
    """Name the classes of which a volume gives a round its truth alone, and warn of it.

    Args:
        index: number of the round.
        labels: what it learns from, by volume.
        classes: names in channel order.
    """
    found = {name: [classes[k] for k in item.doubted] for name, item in labels.items() if item.doubted}
    for name, doubted in found.items():
        logger.warning(
            "round %d, volume %s: the tracks disagree about %s as a whole: only its labelled slices are learnt from; "
            "train the U-Net (sdf) longer, or at smaller voxels where objects are thin",
            index,
            name,
            ", ".join(doubted),
        )
    return found


def require_agreement(scores: Scores, min_agreement: float, place: Path) -> None:
    """Stop where the tracks disagree everywhere.

    Args:
        scores: of the round.
        min_agreement: Dice between the tracks that is enough.
        place: directory of the round, for the message.

    Raises:
        TrainingStopped: says what was found, and what would help.
    """
    if not _finds_anything(scores):
        raise TrainingStopped(
            f"round {scores['round']}: its network finds nothing at all in {', '.join(scores['volumes'])}; train it "
            "longer, or label slices that show more of the classes"
        )
    if not _agrees(scores, min_agreement):
        raise TrainingStopped(
            f"round {scores['round']}: the two tracks agree with Dice {scores['agreement']:.3f}, less than "
            f"selection.min_agreement ({min_agreement}): another round would learn from noise; look at {place}, label "
            "slices where they disagree (sam4em suggest-slices), or train longer"
        )


def reason_to_stop(rounds: Sequence[Scores], settings: StopConfig, min_agreement: float) -> str | None:
    """Say why another round would bring nothing; None where it may.

    Args:
        rounds: scores of all rounds so far, round 0 first.
        settings: when to stop.
        min_agreement: Dice between the tracks that is enough.
    """
    last = rounds[-1]
    if not _finds_anything(last):
        return "its network finds nothing"
    if not _agrees(last, min_agreement):
        return f"the two tracks agree with Dice {last['agreement']:.3f} only"
    if last["change"] is not None and last["change"] < settings.min_change:
        return f"the masks changed by {last['change']:.2%} only"
    if len(rounds) < 3 or last["choose_dice"] is None:
        return None
    gain = last["choose_dice"] - max(scores["choose_dice"] for scores in rounds[1:-1])
    return f"Dice on the choose slices rose by {gain:.4f} only" if gain < settings.min_gain else None


def merit(scores: Scores) -> float:
    """What the best round is chosen by: Dice on the choose slices, else the agreement of the tracks."""
    chosen = scores["choose_dice"]
    return float(chosen if chosen is not None else scores["agreement"] or 0.0)


def _finds_anything(scores: Scores) -> bool:
    return any(volume["foreground_fraction"] for volume in scores["volumes"].values())


def _agrees(scores: Scores, min_agreement: float) -> bool:
    found = scores["agreement"]
    return found is None or found >= min_agreement
