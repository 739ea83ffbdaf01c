"""One training inside a round: what it starts from; begun, resumed, or found finished."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from sam4em_core.training.run import train
from sam4em_core.training.rundir import STATE_FILE
from sam4em_core.training.shipping import BEST_FILE, CARD_FILE, SCORES_FILE
from sam4em_core.training.starting import new_classes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume
    from sam4em_core.training.spatial_config import SpatialConfig

logger = logging.getLogger(__name__)


def train_whole(config: TrainingConfig, volumes: Sequence[TrainingVolume], place: Path) -> Path:
    """Train until the end, from wherever an earlier process got to.

    Args:
        config: the training.
        volumes: what it learns from and is chosen by.
        place: its run directory.

    Returns:
        The best checkpoint.
    """
    # The card is the last file that a training writes.
    if (place / CARD_FILE).exists():
        return place / BEST_FILE
    return train(config, volumes, place, resume=(place / STATE_FILE).exists())


def mask_start(config: SpatialConfig, of_round_zero: Path) -> dict[str, str]:
    """Say what the mask track of round 1 starts from: its own base, where there is one, else the network of round 0.

    Args:
        config: the training.
        of_round_zero: the network of round 0.

    Returns:
        Keys of `TrainingConfig` that differ from those of the part.

    Raises:
        CheckpointError: the base is unreadable.
    """
    if "base" not in config.masks:
        return {"base": str(of_round_zero)}
    start = start_with_classes(config.masks["base"], config.classes, of_round_zero)
    own = config.masks.get("memory_base")
    return {**start, "memory_base": own} if start and own else start


def start_with_classes(base: str | None, classes: tuple[str, ...], learnt: Path) -> dict[str, str]:
    """Take of a base that does not know all classes its memory alone, and everything else from a network that does.

    Args:
        base: what would be started from; None: random weights, which stay.
        classes: of the training.
        learnt: a network that has learnt them.

    Returns:
        Keys of `TrainingConfig` that change; none where the base knows all classes.

    Raises:
        CheckpointError: the base is unreadable.
    """
    if base is None:
        return {}
    new = new_classes(base, classes)
    if not new:
        return {}
    logger.info("base %s does not know %s: its memory is taken, everything else from %s", base, ", ".join(new), learnt)
    return {"base": str(learnt), "memory_base": base}


def best_dice(checkpoint: Path) -> float | None:
    """Give the best mean Dice that a training reached on the choose slices; None where nothing was scored."""
    path = checkpoint.parent / SCORES_FILE
    if not path.exists():
        return None
    history = json.loads(path.read_text(encoding="utf-8"))
    best = max(history, key=lambda entry: entry["mean_iou"])
    dice = [score["dice"] for score in best["classes"].values()]
    return float(sum(dice) / len(dice))
