"""Showing a run: a progress bar on a terminal, plain lines elsewhere, and the CSV log always."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from types import TracebackType

    from sam4em_core.training.board import Board
    from sam4em_core.training.state import StepLog

_LINE_SECONDS = 30.0
_SMOOTHING = 0.05

logger = logging.getLogger(__name__)


class StepReporter:
    """Logs every step and shows how far the run is; use it as a context."""

    def __init__(self, log: StepLog, total_steps: int, done_steps: int, board: Board | None = None) -> None:
        """Prepare bar and lines.

        Args:
            log: the CSV log.
            total_steps: steps of all stages.
            done_steps: steps that an earlier process did.
            board: where curves are drawn.
        """
        self._log = log
        self._board = board
        self._total = total_steps
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("training", total=total_steps, completed=done_steps)
        self._loss = float("nan")
        self._last_line = time.monotonic()

    def __enter__(self) -> StepReporter:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away and write what is left of the curves."""
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    def step(self, row: dict[str, object]) -> None:
        """Log one step.

        Args:
            row: a row of the log.
        """
        self._log.append(row)
        if self._board is not None:
            self._board.step(row)
        loss = float(str(row["loss"]))
        is_first = self._loss != self._loss
        self._loss = loss if is_first else self._loss + _SMOOTHING * (loss - self._loss)
        self._bar.update(self._task, advance=1, description=f"{row['stage']} loss {self._loss:.3f}")
        if self._bar.disable and time.monotonic() - self._last_line >= _LINE_SECONDS:
            self._last_line = time.monotonic()
            logger.info(
                "%s: step %s of %d, loss %.4f, rate %s, %s windows/s",
                row["stage"],
                row["step"],
                self._total,
                self._loss,
                row["learning_rate"],
                row["windows_per_s"],
            )


class SilentReporter:
    """Stands in the place of `StepReporter` in every process but the first."""

    def __enter__(self) -> SilentReporter:
        """Show nothing."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing."""

    def step(self, row: dict[str, object]) -> None:
        """Log nothing."""
