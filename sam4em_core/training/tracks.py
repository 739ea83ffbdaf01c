"""One training inside a round: begun, resumed, or found finished."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sam4em_core.training.run import train
from sam4em_core.training.rundir import STATE_FILE
from sam4em_core.training.shipping import BEST_FILE, CARD_FILE, SCORES_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume


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


def best_dice(checkpoint: Path) -> float | None:
    """Give the best mean Dice that a training reached on the choose slices; None where nothing was scored."""
    path = checkpoint.parent / SCORES_FILE
    if not path.exists():
        return None
    history = json.loads(path.read_text(encoding="utf-8"))
    best = max(history, key=lambda entry: entry["mean_iou"])
    dice = [score["dice"] for score in best["classes"].values()]
    return float(sum(dice) / len(dice))
