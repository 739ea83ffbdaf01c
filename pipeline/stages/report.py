"""What a task says of itself when it is done: small, and able to travel between processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from pipeline.geometry import Vector
from pipeline.storage import UnitRecord

Outcome = Literal["written", "empty"]
"""`empty`: everything the task owns is background, or it owns nothing."""


@dataclass(frozen=True)
class WrittenUnit:
    """One write unit of one array."""

    volume: str
    """Name of the array: see `layout.output_array_name`, or the scratch array's own."""
    position: Vector
    """Place on the array's grid of write units, zyx."""
    crc32c: int | None
    """Checksum of its voxels; None where all are background."""


@dataclass(frozen=True)
class TaskReport:
    """What became of one task."""

    stage: str
    """Name of the stage."""
    index: int
    """Index of the task in the stage."""
    outcome: Outcome
    """Whether there is anything but background."""
    units: tuple[WrittenUnit, ...] = ()
    """Write units of the outputs that the task owns."""
    scratch_units: tuple[WrittenUnit, ...] = ()
    """Write units of scratch arrays that the task owns."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time per phase: read_s, model_s, compute_s, write_s; waiting for the device counts in none."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """What the stage counts; may be summed over tasks."""
    remark: str | None = None
    """What was done otherwise than planned: a repeat may differ in its last bits. Few different texts in a run."""


class Stopwatch:
    """Adds up the wall time of phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to `<name>_s`; what an inner phase counts, the outer one does not."""
        start, counted = time.perf_counter(), sum(self.seconds.values())
        try:
            yield
        finally:
            key = f"{name}_s"
            inner = sum(self.seconds.values()) - counted
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start - inner


def written_units(volume: str, records: Sequence[UnitRecord]) -> tuple[WrittenUnit, ...]:
    """Name the array in the records of its units."""
    return tuple(WrittenUnit(volume, record.position, record.crc32c) for record in records)


def outcome_of(units: Sequence[WrittenUnit]) -> Outcome:
    """Say whether any of the units holds more than background."""
    return "written" if any(unit.crc32c is not None for unit in units) else "empty"
