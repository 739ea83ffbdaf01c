"""One line of the journal: what became of one task."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pipeline.errors import CorruptData

Outcome = Literal["written", "empty", "failed", "redo"]

CODE_OF_OUTCOME: Final[dict[Outcome, str]] = {"written": "w", "empty": "e", "failed": "f", "redo": "r"}
OUTCOME_OF_CODE: Final[dict[str, Outcome]] = {code: outcome for outcome, code in CODE_OF_OUTCOME.items()}


class UnitSum(NamedTuple):
    """The checksum of one write unit."""

    volume: str
    """Which array the unit belongs to, as the plan names it."""
    position: tuple[int, int, int]
    """Where it lies in the array's grid of write units, zyx."""
    crc32c: int | None
    """CRC-32C of the stored bytes; None: all background, nothing was stored."""


@dataclass(frozen=True)
class TaskRecord:
    """What became of one task."""

    index: int
    """Index of the task in its stage."""
    outcome: Outcome
    """`redo` takes an earlier `written` or `empty` back."""
    units: tuple[UnitSum, ...] = ()
    """Write units that the task owns."""
    seconds: float = 0.0
    """Wall time of the last attempt."""
    attempts: int = 1
    """How often it was tried in this run of the driver."""
    error: str | None = None
    """Class and message of the last error, when failed."""
    remark: str | None = None
    """What was done otherwise than planned, when done: a repeat may differ in its last bits."""

    @property
    def is_done(self) -> bool:
        """Whether the task needs no more work."""
        return self.outcome in ("written", "empty")


def encode_record(record: TaskRecord) -> bytes:
    """Write one record as one line of JSON, without the line's end."""
    units = [[unit.volume, *unit.position, unit.crc32c] for unit in record.units]
    fields = [
        record.index,
        CODE_OF_OUTCOME[record.outcome],
        units,
        round(record.seconds, 3),
        record.attempts,
        record.error,
    ]
    if record.remark is not None:
        fields.append(record.remark)
    return json.dumps(fields, separators=(",", ":")).encode()


def decode_record(line: bytes) -> TaskRecord:
    """Read one line of a journal segment.

    Raises:
        CorruptData: the line is not a record.
    """
    try:
        index, code, units, seconds, attempts, error, *rest = json.loads(line)
        (remark,) = rest or (None,)
        sums = tuple(UnitSum(volume, (z, y, x), crc) for volume, z, y, x, crc in units)
        return TaskRecord(int(index), OUTCOME_OF_CODE[code], sums, float(seconds), int(attempts), error, remark)
    except (ValueError, TypeError, KeyError) as error_found:
        raise CorruptData(f"reading a journal line: {line[:80]!r} is not a record") from error_found
