"""Files of a run directory that must never be half written, and the log of every step."""

from __future__ import annotations

import csv
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sam4em_core.errors import CheckpointError
from sam4em_core.training.errors import TrainingDiskError

if TYPE_CHECKING:
    from collections.abc import Callable

LOG_COLUMNS = (
    "step",
    "stage",
    "loss",
    "learning_rate",
    "grad_norm",
    "windows_per_s",
    "data_fraction",
    "elapsed_s",
)
"""Columns of `log.csv`: seconds by the config's clock; `data_fraction` is the share of a step spent on windows."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under another name beside its place and move it there when it is complete.

    Args:
        path: where the file shall be; what lies there stays whole until the end.
        write: writes the file at the path that it is given.

    Raises:
        TrainingDiskError: the disk is full or does not allow writing.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise TrainingDiskError(
            f"writing {path}: {error}; free space or choose another run directory, then resume "
            "(the previous checkpoint is whole)"
        ) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        TrainingDiskError: the disk is full or does not allow writing.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingDiskError(f"making the folder {path}: {error}") from error


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write the state of a run: tensors, numbers and strings only."""
    write_whole(path, lambda place: torch.save(state, place))


def load_state(path: Path) -> dict[str, Any]:
    """Read the state of a run.

    Raises:
        CheckpointError: the file is not a whole state.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"reading the training state {path}: {str(error).splitlines()[0] if str(error) else 'it is empty'}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"the training state {path} holds a {type(state).__name__}, not a dict")
    return state


class StepLog:
    """`log.csv`: one row per step, cut back to the resumed step."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Open the log and drop rows of steps that will be run again.

        Args:
            path: the CSV file.
            first_step: the first step that this process runs.
        """
        self._path = path
        rows = read_log(path) if path.exists() else []
        kept = [row for row in rows if int(row["step"]) < first_step]
        write_whole(path, lambda place: _write_rows(place, kept))

    def append(self, row: dict[str, object]) -> None:
        """Add one step.

        Raises:
            TrainingDiskError: the disk is full or does not allow writing.
        """
        try:
            with self._path.open("a", newline="") as stream:
                csv.DictWriter(stream, LOG_COLUMNS).writerow(row)
        except OSError as error:
            raise TrainingDiskError(f"writing {self._path}: {error}; free space, then resume") from error


def read_log(path: Path) -> list[dict[str, str]]:
    """Read a log; a last row cut short by a kill is left out."""
    with path.open(newline="") as stream:
        return [row for row in csv.DictReader(stream) if row["elapsed_s"]]


def _write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, LOG_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
