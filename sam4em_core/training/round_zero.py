"""Round 0: the first pseudo-labels, from the labelled slices alone.

1. propagation: trained on the auxiliary volumes (where there are some), then on films of the labelled slices, with one
   class at a time: carrying does not ask what a mask is of; its Dice against the distance from a labelled slice is
   measured on the choose slices
2. direct: a network that is trained on the labelled slices alone; scored on the choose slices
3. the better of the two segments the volumes

Propagation's score is the mean of its Dice over the distances at which the unlabelled slices lie. The choose slices
show the short distances, labelled slices the one from each to the next; between those it is interpolated. Beyond the
longest one the last Dice is taken: an optimist's guess, and said.
"""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.header import read_checkpoint_header
from sam4em_core.propagation import Propagation, dice_by_distance, propagate_masks
from sam4em_core.segmenter import chosen_device, device_errors
from sam4em_core.training.data import UNLABELLED, TrainingVolume, grey_of
from sam4em_core.training.drift import drifting_stack
from sam4em_core.training.pseudo_labels import Evidence, dice_per_slice, smoothed_disagreement
from sam4em_core.training.subjects import SparseVolume, Subject, subjects_of
from sam4em_core.training.tracks import best_dice, train_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from sam4em_core.training.spatial_config import SpatialConfig

logger = logging.getLogger(__name__)

_INSIDE = 128


@dataclass(frozen=True)
class RoundZero:
    """What round 0 decided."""

    start: str
    """`propagation` or `direct`."""
    checkpoint: Path
    """The network that segments the volumes, and that the mask track starts from."""
    facts: dict[str, Any]
    """For `scores.json`: Dice by distance, and what was compared."""


def train_round_zero(
    config: SpatialConfig,
    subjects: Sequence[Subject],
    choosing: Sequence[TrainingVolume],
    auxiliary: Sequence[TrainingVolume],
    place: Path,
) -> RoundZero:
    """Train what round 0 needs and decide which network segments the volumes.

    Args:
        config: the training.
        subjects: the volumes on the working lattice.
        choosing: volumes with a choose range alone.
        auxiliary: fully labelled volumes to learn carrying from.
        place: directory of the round.
    """
    start = config.round_zero.start
    facts: dict[str, Any] = {}
    found: dict[str, Path] = {}
    if config.propagation is not None and start != "direct":
        found["propagation"] = _train_carrier(config, subjects, auxiliary, place)
        curve = dice_against_distance(found["propagation"], choosing, subjects, config)
        facts["propagation_dice_by_distance"] = {str(distance): round(dice, 4) for distance, dice in curve.items()}
        if curve:
            facts["propagation_dice"] = round(expected_dice(curve, subjects), 4)
    if config.direct is not None and start != "propagation":
        truth = [subject.as_volume(subject.name, subject.truth_czyx) for subject in subjects if subject.labelled]
        found["direct"] = train_whole(config.part("direct"), [*truth, *choosing], place / "direct")
        score = best_dice(found["direct"])
        if score is not None:
            facts["direct_dice"] = round(score, 4)
    facts["start"] = _better(found, facts)
    return RoundZero(facts["start"], found[facts["start"]], facts)


def _better(found: dict[str, Path], facts: dict[str, Any]) -> str:
    """Name the network that scored higher, and say why it was taken."""
    if len(found) == 1:
        return next(iter(found))
    carried, direct = facts.get("propagation_dice"), facts.get("direct_dice")
    if carried is None or direct is None:
        logger.info("round 0 starts from propagation: no choose slices can compare it with the labelled slices alone")
        return "propagation"
    chosen = "direct" if carried < direct else "propagation"
    logger.info(
        "round 0 starts from %s: a network of the labelled slices alone has Dice %.4f on the choose slices, "
        "propagation is expected to have %.4f at the distances of the unlabelled slices",
        chosen,
        direct,
        carried,
    )
    return chosen


def _train_carrier(
    config: SpatialConfig, subjects: Sequence[Subject], auxiliary: Sequence[TrainingVolume], place: Path
) -> Path:
    base: dict[str, Any] = {}
    if auxiliary:
        volumes = [part for volume in auxiliary for part in class_by_class(volume, config.classes)]
        learnt = train_whole(config.part("auxiliary"), volumes, place / "auxiliary")
        base = {"base": str(learnt)}
    films = films_of(subjects, config)
    return train_whole(config.part("propagation", **base), films, place / "propagation")


def films_of(subjects: Sequence[Subject], config: SpatialConfig) -> list[TrainingVolume]:
    """Make the films of all labelled slices, class by class."""
    settings = config.round_zero
    films = []
    for subject in subjects:
        for z in subject.labelled:
            for take in range(settings.films_per_slice):
                rng = np.random.default_rng([config.seed, z, take])
                film = drifting_stack(
                    subject.image_zyx[z],
                    subject.truth_czyx[:, z],
                    slices=settings.drift_slices,
                    name=f"{subject.name}, slice {z}, film {take}",
                    voxel_size_zyx_nm=subject.voxel_size_zyx_nm,
                    rng=rng,
                )
                films += class_by_class(film, config.classes)
    return films


def class_by_class(volume: TrainingVolume, classes: tuple[str, ...]) -> list[TrainingVolume]:
    """Give a volume once per class, with the labels of that class alone."""
    return [
        replace(volume, name=f"{volume.name}, {name}", labels_czyx=volume.labels_czyx[[k]])
        for k, name in enumerate(classes)
    ]


def carry(checkpoint: Path, subject: Subject, device: str) -> Propagation:
    """Carry the labelled slices of a volume through it, class by class."""
    chosen = chosen_device(device)
    with device_errors(f"carrying the masks of {subject.name} on {chosen}"):
        loaded = load_checkpoint(checkpoint, chosen)
        network = loaded.network.eval()
        image = grey_of(subject.image_zyx)
        carried = []
        for k in range(len(subject.truth_czyx)):
            given = {z: (subject.truth_czyx[[k], z] == 1).astype(np.uint8) for z in subject.labelled}
            carried.append(propagate_masks(network, loaded.header, image, given))
    up, down = zip(*((one.upward_czyx, one.downward_czyx) for one in carried), strict=True)
    return Propagation(np.concatenate(up), np.concatenate(down), carried[0].given)


def propagation_evidence(checkpoint: Path, subject: Subject, device: str) -> Evidence:
    """Segment a volume by propagation: the two directions are the tracks."""
    carried = carry(checkpoint, subject, device)
    up, down = carried.distances()
    agreement = dice_per_slice(carried.upward_czyx >= _INSIDE, carried.downward_czyx >= _INSIDE)
    # On a labelled slice both hold what was given: that tells nothing.
    agreement[(up <= 0) | (down <= 0)] = np.nan
    half = (0.5,) * len(subject.truth_czyx)
    return Evidence(carried.fused(), carried.disagreement(), agreement, half)


def direct_evidence(probability_czyx: npt.NDArray[np.uint8], checkpoint: Path) -> Evidence:
    """Judge every slice of what a network gave by its neighboring slices."""
    thresholds = read_checkpoint_header(checkpoint).thresholds
    disagrees, agreement = smoothed_disagreement(probability_czyx, thresholds)
    return Evidence(probability_czyx, disagrees, agreement, thresholds)


def dice_against_distance(
    checkpoint: Path, choosing: Sequence[TrainingVolume], subjects: Sequence[Subject], config: SpatialConfig
) -> dict[int, float]:
    """Measure how far a mask can be carried.

    From the first and from the last choose slice, towards each other; and from labelled slices to the labelled ones
    beside them, where these are further away than the choose slices show: what is lost where objects end and others
    begin. Nearer ones do not count, since the network has learnt from labelled slices.

    Returns:
        Distance in working slices -> Dice, mean over directions and volumes; empty without choose slices.
    """
    part = config.part("propagation")
    curves: list[dict[int, float]] = []
    for volume in choosing:
        region = TrainingVolume(
            volume.name, volume.image_zyx, volume.labels_czyx, volume.voxel_size_zyx_nm, train=volume.choose
        )
        subject = subjects_of([SparseVolume(region)], config.classes, part.voxel_size_zyx_nm)[0]
        last = len(subject.image_zyx) - 1
        curves += [_curve(checkpoint, subject, first, stop, part.device) for first, stop in ((0, last), (last, 0))]
    longest = max((float(distance) for curve in curves for distance in curve), default=math.inf)
    for subject in subjects:
        for lower, upper in itertools.pairwise(subject.labelled):
            if upper - lower > longest:
                ends = ((lower, upper), (upper, lower))
                curves += [_curve(checkpoint, subject, first, stop, part.device) for first, stop in ends]
    known = sorted({distance for curve in curves for distance in curve})
    return {distance: float(np.mean([curve[distance] for curve in curves if distance in curve])) for distance in known}


def _curve(checkpoint: Path, subject: Subject, first: int, stop: int, device: str) -> dict[int, float]:
    """Carry one slice's mask to another slice: distance -> Dice, where slices in between and that one are labelled."""
    low, high = min(first, stop), max(first, stop) + 1
    whole = subject.truth_czyx[:, low:high]
    truth = np.full_like(whole, UNLABELLED)
    truth[:, first - low] = whole[:, first - low]
    part = Subject(subject.name, subject.image_zyx[low:high], truth, subject.voxel_size_zyx_nm, 0)
    distances = np.abs(np.arange(low, high) - first)
    distances[(whole == UNLABELLED).all(axis=(0, 2, 3))] = 0
    return dice_by_distance(carry(checkpoint, part, device).fused() >= _INSIDE, whole, distances)


def expected_dice(curve: dict[int, float], subjects: Sequence[Subject]) -> float:
    """Give the mean Dice of the unlabelled slices, by their distance from the nearest labelled one."""
    known = sorted(curve)
    found: list[float] = []
    for subject in subjects:
        labelled = np.array(subject.labelled)
        if not labelled.size:
            continue
        nearest = np.abs(np.arange(len(subject.image_zyx))[:, None] - labelled).min(axis=1)
        found += np.interp(nearest[nearest > 0], known, [curve[distance] for distance in known]).tolist()
    return float(np.mean(found)) if found else 1.0
