"""One driver per run: numbered leases, each created exclusively, with a heartbeat.

    lease/00000000.json    released by its holder
    lease/00000001.json    its holder was killed
    lease/00000002.json    held: the highest number holds the run

Object stores have no compare-and-swap that all of them share, so a lease is never taken over in place.
Taking over lease n is creating lease n + 1 exclusively: of two drivers that find n stale, the store lets one
create n + 1, and the other finds itself second. A holder only ever rewrites its own object (heartbeat,
release), and looks for n + 1 at each heartbeat: a driver that was frozen and wakes up finds itself replaced
and stops. What it had written until then stays true, since tasks are idempotent and say the same bytes.

A lease is stale when its holder was a process of this machine that is gone, or when its heartbeat is older
than `STALE_S` and does not move while the newcomer watches: the watching covers clocks that differ. A heartbeat
that cannot be written for so long counts as lost: the other side must assume it too.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pipeline.errors import OurError, RunLocked, WorldError
from pipeline.ledger.objects import ObjectStore, encode_document, read_document

HEARTBEAT_S: Final = 5.0
STALE_S: Final = 30.0
POLL_S: Final = 0.2


@dataclass(frozen=True)
class LeaseRecord:
    """What a lease says about its holder."""

    host: str
    """Name of the machine."""
    pid: int
    """Process on that machine."""
    process: str
    """What tells the process from others with its number: boot, pid namespace, start time."""
    taken_s: float
    """When it was taken, seconds since 1970."""
    beat_s: float
    """When it was last confirmed, seconds since 1970."""
    beats: int = 0
    """How often it was confirmed."""
    released: bool = False
    """Whether its holder has let go."""

    def __str__(self) -> str:
        """Name the holder."""
        taken = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.taken_s))
        return f"process {self.pid} on {self.host} since {taken}"


def lease_key(number: int) -> str:
    """Give the key of one lease."""
    return f"lease/{number:08d}.json"


def process_identity(pid: int) -> str | None:
    """Tell a process of this machine from every other that has or had its number; None: it is gone.

    Empty where the system does not tell: then only the heartbeat counts.
    """
    proc = Path("/proc")
    if not (proc / "self").exists():
        return ""
    try:
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
        # The name in the second field may hold spaces; the start time is the 20th field after its bracket.
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        namespace = (proc / "self/ns/pid").readlink()
    except FileNotFoundError:
        return None
    except OSError:
        return ""
    return None if fields[0] in "ZX" else f"{boot} {namespace} {fields[19]}"


def last_number(store: ObjectStore) -> int | None:
    """Find the highest lease in O(log n) look-ups: leases are numbered without gaps and never deleted."""
    if not store.exists(lease_key(0)):
        return None
    low, step = 0, 1
    while store.exists(lease_key(low + step)):
        low += step
        step *= 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if store.exists(lease_key(middle)) else (low, middle)
    return low


def read_lease(store: ObjectStore, number: int) -> LeaseRecord | None:
    """Read one lease, or None."""
    document = read_document(store, lease_key(number))
    return None if document is None else LeaseRecord(**document)


def current_holder(store: ObjectStore) -> LeaseRecord | None:
    """Tell who holds the run, dead or alive; None: nobody does."""
    number = last_number(store)
    record = None if number is None else read_lease(store, number)
    return None if record is None or record.released else record


def is_gone(record: LeaseRecord) -> bool:
    """Whether the holder was a process of this machine and is there no more."""
    if record.host != socket.gethostname() or not record.process:
        return False
    mine = process_identity(os.getpid())
    if not mine or mine.split()[:2] != record.process.split()[:2]:
        return False
    return process_identity(record.pid) != record.process


class Lease:
    """The right to drive one run, kept by a heartbeat in a thread. A context manager."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        heartbeat_s: float = HEARTBEAT_S,
        stale_s: float = STALE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._stale_s = stale_s
        self._clock = clock
        self._number = -1
        self._record: LeaseRecord | None = None
        self._lost: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def number(self) -> int:
        """Number of the lease held; -1: none."""
        return self._number

    def take(self) -> Self:
        """Take the lease and start its heartbeat.

        Raises:
            RunLocked: another driver holds it; the message names it.
        """
        last = last_number(self._store)
        if last is not None:
            self._wait_until_free(last)
        self._number = 0 if last is None else last + 1
        now = self._clock()
        pid = os.getpid()
        self._record = LeaseRecord(socket.gethostname(), pid, process_identity(pid) or "", now, now)
        if not self._store.put_if_absent(lease_key(self._number), encode_document(asdict(self._record))):
            winner = read_lease(self._store, self._number)
            raise RunLocked(f"starting the run: {winner} was faster; wait for it to end")
        self._thread = threading.Thread(target=self._beat_until_stopped, name="lease", daemon=True)
        self._thread.start()
        return self

    def check(self) -> None:
        """Refuse to go on when the lease is lost.

        Raises:
            RunLocked: another driver has taken over, or the heartbeat could not be written for too long.
        """
        if self._lost is not None:
            raise RunLocked(f"driving the run: {self._lost}; the run can be taken up by the same command")

    def is_mine(self) -> bool:
        """Look into the store whether this lease is still the highest."""
        if self._lost is None and self._store.exists(lease_key(self._number + 1)):
            holder = read_lease(self._store, self._number + 1)
            self._lost = f"another driver has taken over: {holder}"
        return self._lost is None

    def release(self) -> None:
        """Let go: the next driver needs not wait. A store that fails now only makes it wait."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._record is not None and self._lost is None:
            with contextlib.suppress(WorldError):
                self._write(replace(self._record, released=True))
        self._record = None

    def __enter__(self) -> Self:
        """Take the lease."""
        return self.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go."""
        self.release()

    def _wait_until_free(self, number: int) -> None:
        record = read_lease(self._store, number)
        if record is None or record.released or is_gone(record):
            return
        age = self._clock() - record.beat_s
        if age < self._stale_s:
            raise RunLocked(
                f"starting the run: {record} holds it (heartbeat {max(age, 0):.0f} s old); wait for it to end, or, "
                f"if it is dead, until the heartbeat is {self._stale_s:.0f} s old"
            )
        deadline = time.monotonic() + 2 * self._heartbeat_s
        while time.monotonic() < deadline:
            if read_lease(self._store, number) != record:
                raise RunLocked(f"starting the run: {record} holds it and its heartbeat moves; wait for its end")
            time.sleep(min(POLL_S, self._heartbeat_s))

    def _beat_until_stopped(self) -> None:
        last_success = time.monotonic()
        while not self._stop.wait(self._heartbeat_s):
            try:
                if not self.is_mine():
                    return
                self._beat()
                last_success = time.monotonic()
            except WorldError as error:
                if time.monotonic() - last_success > self._stale_s:
                    self._lost = f"no heartbeat could be written for {self._stale_s:.0f} s ({error})"
                    return

    def _beat(self) -> None:
        if self._record is None:
            raise OurError("heartbeat of a lease that is not held")
        self._write(replace(self._record, beat_s=self._clock(), beats=self._record.beats + 1))

    def _write(self, record: LeaseRecord) -> None:
        self._store.put(lease_key(self._number), encode_document(asdict(record)))
        self._record = record
