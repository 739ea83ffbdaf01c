"""Curves for TensorBoard, where it is installed: every step's row and every validation's scores."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from sam4em_core.training.scores import ClassScore

_CURVES = ("loss", "learning_rate", "grad_norm", "windows_per_s", "data_fraction")

logger = logging.getLogger(__name__)


class Board:
    """Writes event files; does nothing where it is switched off or TensorBoard is not installed."""

    def __init__(self, folder: Path, first_step: int, *, enabled: bool) -> None:
        """Open the event files.

        Args:
            folder: where they lie.
            first_step: the first step of this process: later ones of an earlier process are hidden.
            enabled: whether curves are wanted.
        """
        self._writer: Any = None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415
        except ImportError:
            logger.warning(
                "no TensorBoard curves: the package is not installed (pip install tensorboard, or "
                "training.tensorboard=false); log.csv has the same numbers"
            )
            return
        self._writer = SummaryWriter(str(folder), purge_step=first_step)

    def step(self, row: dict[str, object]) -> None:
        """Add one step.

        Args:
            row: a row of the log.
        """
        if self._writer is not None:
            for name in _CURVES:
                self._writer.add_scalar(f"train/{name}", float(str(row[name])), int(str(row["step"])))

    def scores(self, step: int, scores: dict[str, ClassScore]) -> None:
        """Add one validation."""
        if self._writer is not None:
            for name, score in scores.items():
                self._writer.add_scalar(f"choose/{name} IoU", score.iou, step)
                self._writer.add_scalar(f"choose/{name} Dice", score.dice, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
