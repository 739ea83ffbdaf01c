"""The journal: numbered immutable segments per stage, replayed by number, never listed.

    journal/<stage>/00000000.jsonl      records, one per line, then {"records": n, "crc32c": "..."}
    journal/<stage>/00000001.jsonl
    ...                                 until the first number that is not there

A segment is created exclusively and never changed. One whose last line does not fit its content was torn: it
is passed over, and the tasks it held are done again. A record is in memory at once and on disk after the next
flush; a driver that is killed loses what it had not flushed, which only costs doing those tasks again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import google_crc32c

from pipeline.errors import OurError, RunLocked
from pipeline.ledger.done_map import DoneMap
from pipeline.ledger.objects import ObjectStore, read_object
from pipeline.ledger.record import TaskRecord, decode_record, encode_record

FLUSH_RECORDS: Final = 4096
# A flush costs one object per stage. Waiting at most a thousandth of the time already spent bounds both the
# work that a kill can cost (0.1 %) and the number of segments (1,000 and then one per minute).
FLUSH_MIN_AGE_S: Final = 2.0
FLUSH_MAX_AGE_S: Final = 60.0
FLUSH_AGE_FRACTION: Final = 1e-3
# Segments asked for ahead of the one being read: hides the latency of an object store.
READ_AHEAD: Final = 8


def segment_key(stage: str, number: int) -> str:
    """Give the key of one segment."""
    return f"journal/{stage}/{number:08d}.jsonl"


def encode_segment(records: list[TaskRecord]) -> bytes:
    """Write a segment: one line per record and the line that proves that it is whole."""
    body = b"".join(encode_record(record) + b"\n" for record in records)
    seal = {"records": len(records), "crc32c": f"{google_crc32c.value(body):08x}"}
    return body + json.dumps(seal).encode() + b"\n"


def decode_segment(data: bytes) -> list[TaskRecord]:
    """Read a segment; a torn one gives no records."""
    body, _, last = data.rstrip(b"\n").rpartition(b"\n")
    body = body + b"\n" if body else b""
    try:
        seal = json.loads(last)
    except ValueError:
        return []
    if not isinstance(seal, dict) or seal.get("crc32c") != f"{google_crc32c.value(body):08x}":
        return []
    return [decode_record(line) for line in body.splitlines()]


def read_segments(store: ObjectStore, stage: str, first: int = 0) -> Iterator[list[TaskRecord]]:
    """Read a stage's segments in order, from number `first` to the first one that is not there."""
    with ThreadPoolExecutor(READ_AHEAD, thread_name_prefix="journal-read") as pool:
        waiting: list[Future[bytes | None]] = []
        number = first
        while True:
            while len(waiting) < READ_AHEAD:
                waiting.append(pool.submit(read_object, store, segment_key(stage, number)))
                number += 1
            data = waiting.pop(0).result()
            if data is None:
                return
            yield decode_segment(data)


class StageJournal:
    """The records of one stage: what is done, what failed, what is not on disk yet."""

    def __init__(self, store: ObjectStore, stage: str, num_tasks: int) -> None:
        self.stage = stage
        self.done = DoneMap(num_tasks)
        self.empty = DoneMap(num_tasks)
        """The tasks that are done and left nothing: outside the mask, of one grey value, without an object."""
        self.failed: dict[int, str] = {}
        """Error text by task, for the tasks whose last record says failed."""
        self.remarks: Counter[str] = Counter()
        """What was done otherwise than planned, and how often, tasks that were done again since included."""
        self._store = store
        self._pending: list[TaskRecord] = []
        self._next_segment = 0

    @property
    def num_pending(self) -> int:
        """Records that are not on disk yet."""
        return len(self._pending)

    @property
    def num_segments(self) -> int:
        """Segments on disk, as far as they were read or written here."""
        return self._next_segment

    def replay(self) -> int:
        """Read what is new on disk since the last call; gives the number of records."""
        num_records = 0
        for records in read_segments(self._store, self.stage, self._next_segment):
            self._next_segment += 1
            num_records += len(records)
            for record in records:
                self._apply(record)
        return num_records

    def latest_records(self) -> Iterator[TaskRecord]:
        """Read the last record of every task, newest first; one segment in memory and one bit per task."""
        seen = DoneMap(self.done.num_tasks)
        for number in reversed(range(self._next_segment)):
            data = read_object(self._store, segment_key(self.stage, number))
            for record in reversed(decode_segment(data or b"")):
                if seen.add(record.index):
                    yield record

    def delete(self) -> None:
        """Remove every segment, the last one first: what is left at any time is a journal that ends earlier."""
        for number in reversed(range(self._next_segment)):
            self._store.delete(segment_key(self.stage, number))
        self._next_segment = 0

    def add(self, record: TaskRecord) -> None:
        """Take up one record; it is on disk after the next flush."""
        self._apply(record)
        self._pending.append(record)

    def flush(self, still_mine: Callable[[], bool]) -> None:
        """Write what is pending as the next segment.

        Args:
            still_mine: asked when another process has written that segment: whether this driver still holds
                the lease. If so, a driver that lost it was late by one segment, whose records are true.

        Raises:
            RunLocked: another driver holds the run.
        """
        if not self._pending:
            return
        data = encode_segment(self._pending)
        while not self._store.put_if_absent(segment_key(self.stage, self._next_segment), data):
            if not still_mine():
                raise RunLocked(
                    f"writing the journal of stage {self.stage}: another driver has taken over this run; "
                    f"wait for it to end, then give the same command again"
                )
            if self.replay() == 0 and read_object(self._store, self._key()) is not None:
                raise OurError(f"the journal of stage {self.stage} has a segment that cannot be read")
        self._pending = []
        self._next_segment += 1

    def _key(self) -> str:
        return segment_key(self.stage, self._next_segment)

    def _apply(self, record: TaskRecord) -> None:
        if record.is_done:
            self.done.add(record.index)
            self.failed.pop(record.index, None)
            if record.remark is not None:
                self.remarks[record.remark] += 1
            if record.outcome == "empty":
                self.empty.add(record.index)
            else:
                self.empty.discard(record.index)
        elif record.outcome == "redo":
            self.done.discard(record.index)
            self.empty.discard(record.index)
        else:
            self.failed[record.index] = record.error or "no cause recorded"


class Journal:
    """The journals of all stages of a run."""

    def __init__(
        self,
        store: ObjectStore,
        num_tasks: Mapping[str, int],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stages = {name: StageJournal(store, name, count) for name, count in num_tasks.items()}
        self._clock = clock
        self._start = self._last_flush = clock()

    @property
    def is_complete(self) -> bool:
        """Whether every task of every stage is done."""
        return all(stage.done.is_full for stage in self.stages.values())

    def replay(self) -> int:
        """Read what is on disk; gives the number of records."""
        return sum(stage.replay() for stage in self.stages.values())

    def add(self, stage: str, record: TaskRecord) -> None:
        """Take up one record of a stage."""
        self.stages[stage].add(record)

    def flush_if_due(self, still_mine: Callable[[], bool]) -> bool:
        """Flush when enough records or enough time have gathered; tells whether it did."""
        now = self._clock()
        wanted = (now - self._start) * FLUSH_AGE_FRACTION
        is_old = now - self._last_flush >= min(max(wanted, FLUSH_MIN_AGE_S), FLUSH_MAX_AGE_S)
        is_long = any(stage.num_pending >= FLUSH_RECORDS for stage in self.stages.values())
        if is_old or is_long:
            self.flush(still_mine)
        return is_old or is_long

    def flush(self, still_mine: Callable[[], bool]) -> None:
        """Write every pending record."""
        self._last_flush = self._clock()
        for stage in self.stages.values():
            stage.flush(still_mine)
