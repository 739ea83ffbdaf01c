"""Sorts failures by what is to blame, for the list of blocks that are missing at the end of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

from pipeline import errors
from pipeline.errors import Sam4emError

Cause = Literal["data", "store", "memory", "crash", "worker lost", "device", "model", "code"]

# The nearest class counts, so that a class below another may have a cause of its own.
_CAUSES: Final[dict[type[Sam4emError], Cause]] = {
    errors.CorruptData: "data",
    errors.VolumeFormatError: "data",
    errors.VolumeNotFound: "data",
    errors.WorldError: "store",
    errors.WorkerOutOfMemory: "memory",
    errors.WorkerCrashed: "crash",
    errors.WorkerDied: "worker lost",
    errors.DeviceOutOfMemory: "memory",
    errors.DeviceLost: "device",
    errors.WeightsError: "model",
}
_OF_PYTHON: Final[dict[str, Cause]] = {"MemoryError": "memory"}


def cause_of(error: str) -> Cause:
    """Tell what is to blame for a failure.

    Args:
        error: its text as in the journal, `Class: message`.
    """
    kind = error.partition(":")[0]
    found = getattr(errors, kind, None)
    if not isinstance(found, type):
        return _OF_PYTHON.get(kind, "code")
    return next((_CAUSES[base] for base in found.__mro__ if base in _CAUSES), "code")


def count_causes(found: Iterable[str]) -> dict[Cause, int]:
    """Count failures by cause, the most frequent first."""
    return dict(Counter(cause_of(error) for error in found).most_common())
