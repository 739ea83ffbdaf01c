"""What a person sees while something runs: logs and progress, on stderr; results belong on stdout.

A terminal gets `rich`; a file or a pipe gets plain lines, one per stage and interval, so that a log of a
week stays readable.
"""

from __future__ import annotations

import logging
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
PLAIN_INTERVAL_S: Final = 10.0
LIVE_INTERVAL_S: Final = 0.25
# Rates are taken over this many seconds: long enough to be calm, short enough to follow a cluster that grows.
RATE_WINDOW_S: Final = 60.0
# Libraries whose INFO is about themselves.
NOISY_LOGGERS: Final = ("distributed", "botocore", "s3fs", "fsspec", "asyncio", "urllib3", "google")


@dataclass(frozen=True)
class StageProgress:
    """Where one stage stands."""

    total: int
    """Tasks in all."""
    done: int
    """Tasks done, earlier runs of the driver included."""
    failed: int = 0
    """Tasks that failed for good, or need one that did."""
    running: int = 0
    """Tasks handed out."""


@dataclass(frozen=True)
class Progressed:
    """Where a run stands."""

    stages: Mapping[str, StageProgress]
    """Every stage in order."""
    num_workers: int = 0
    """Workers that have finished a task."""
    busy_fraction: float | None = None
    """Time inside the model / (wall time x workers); None: not known."""
    peak_bytes: int = 0
    """Largest resident memory of a worker; 0: not known."""
    num_retried: int = 0
    """Attempts that failed and were tried again."""


class Reporter(Protocol):
    """Shows progress. A context manager."""

    def update(self, progressed: Progressed) -> None:
        """Take note; cheap, may be called after every task."""
        ...

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        ...


@dataclass
class RateMeter:
    """Tasks per second over the last while."""

    clock: Callable[[], float] = time.monotonic
    """Seconds, monotonic."""
    _marks: list[tuple[float, int]] = field(default_factory=list)

    def update(self, count: int) -> float | None:
        """Take up a count; gives tasks per second, None before anything has moved."""
        now = self.clock()
        self._marks.append((now, count))
        while len(self._marks) > 2 and self._marks[1][0] <= now - RATE_WINDOW_S:
            self._marks.pop(0)
        (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
        return (last - first) / (last_s - first_s) if last > first and last_s > first_s else None


def format_duration(seconds: float) -> str:
    """Write a time left: 4 s, 3 min, 2 h 05 min, 3 d 04 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60:02d} h"


def set_up_logging(level: str, stream: TextIO | None = None) -> None:
    """Send the log of this process to stderr: rich on a terminal, plain lines elsewhere.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        stream: in place of stderr.
    """
    target = sys.stderr if stream is None else stream
    handler: logging.Handler
    if target.isatty():
        handler = RichHandler(console=Console(file=target), show_path=False, rich_tracebacks=False)
    else:
        handler = logging.StreamHandler(target)
        handler.setFormatter(logging.Formatter(PLAIN_FORMAT))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _Throttled(ABC):
    """Base of the reporters: shows at intervals, and the last state at the end."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._last_s = float("-inf")
        self._latest: Progressed | None = None

    def update(self, progressed: Progressed) -> None:
        """See `Reporter.update`."""
        self._latest = progressed
        now = self._clock()
        if now - self._last_s >= self._interval_s:
            self._last_s = now
            self._show(progressed)

    def __enter__(self) -> Self:
        """Begin to show."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the last state."""
        if self._latest is not None:
            self._show(self._latest)

    @abstractmethod
    def _show(self, progressed: Progressed) -> None:
        """Show where the run stands, now."""


class PlainReporter(_Throttled):
    """One line per stage that moved, at intervals."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        interval_s: float = PLAIN_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s, clock)
        self._stream = stream
        self._meters: dict[str, RateMeter] = {}
        self._shown: dict[str, StageProgress] = {}

    def _show(self, progressed: Progressed) -> None:
        stream = sys.stderr if self._stream is None else self._stream
        for name, stage in progressed.stages.items():
            meter = self._meters.setdefault(name, RateMeter(self._clock))
            rate = meter.update(stage.done)
            if self._shown.get(name, StageProgress(stage.total, 0)) != stage:
                stream.write(f"{describe_stage(name, stage, rate)}\n")
                self._shown[name] = stage
        stream.flush()


def describe_stage(name: str, stage: StageProgress, rate: float | None) -> str:
    """Write one stage's progress as one line."""
    parts = [f"{name}: {stage.done} of {stage.total} done"]
    if stage.failed:
        parts.append(f"{stage.failed} failed or blocked")
    if stage.running:
        parts.append(f"{stage.running} running")
    if rate is not None and stage.done + stage.failed < stage.total:
        left_s = (stage.total - stage.done - stage.failed) / rate
        parts.append(f"{rate:.3g}/s, {format_duration(left_s)} left")
    return ", ".join(parts)


def describe_workers(progressed: Progressed, seconds_left: float | None) -> str:
    """Write what is not about one stage as one line; empty where there is nothing to say."""
    failed = sum(stage.failed for stage in progressed.stages.values())
    parts = (
        "" if seconds_left is None else f"about {format_duration(seconds_left)} left",
        f"workers: {progressed.num_workers}" if progressed.num_workers else "",
        f"{progressed.busy_fraction:.0%} of their time inside the model" if progressed.busy_fraction else "",
        f"largest worker {progressed.peak_bytes / 2**30:.2f} GiB" if progressed.peak_bytes else "",
        f"tries repeated: {progressed.num_retried}" if progressed.num_retried else "",
        f"tasks failed or blocked: {failed}" if failed else "",
    )
    return ", ".join(part for part in parts if part)


class LiveReporter(_Throttled):
    """One live view on a terminal: a bar per stage, and a line about workers and memory."""

    def __init__(
        self,
        console: Console | None = None,
        *,
        interval_s: float = LIVE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s, clock)
        self._progress = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._line = Text(style="dim")
        self._live = Live(
            Group(self._progress, self._line),
            console=Console(stderr=True) if console is None else console,
            refresh_per_second=4,
        )
        self._bars: dict[str, TaskID] = {}
        self._meters: dict[str, RateMeter] = {}

    def __enter__(self) -> Self:
        """Draw the bars."""
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Draw them once more and leave them."""
        super().__exit__(kind, error, trace)
        self._live.stop()

    def _show(self, progressed: Progressed) -> None:
        left_s = []
        for name, stage in progressed.stages.items():
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=stage.total, note="")
                self._meters[name] = RateMeter(self._clock)
            rate = self._meters[name].update(stage.done)
            self._progress.update(self._bars[name], completed=stage.done, note=_note(stage, rate))
            if rate:
                left_s.append((stage.total - stage.done - stage.failed) / rate)
        self._line.plain = describe_workers(progressed, max(left_s, default=None))


def _note(stage: StageProgress, rate: float | None) -> str:
    notes = [f"{stage.failed} failed"] if stage.failed else []
    if rate is not None and stage.done + stage.failed < stage.total:
        left_s = (stage.total - stage.done - stage.failed) / rate
        notes.append(f"{rate:.3g}/s, {format_duration(left_s)} left")
    return ", ".join(notes)


class SilentReporter(_Throttled):
    """Shows nothing; keeps the last state for whoever asks."""

    def __init__(self) -> None:
        super().__init__(0.0, time.monotonic)

    @property
    def latest(self) -> Progressed | None:
        """The last state."""
        return self._latest

    def _show(self, progressed: Progressed) -> None:
        del progressed


def make_reporter(stream: TextIO | None = None) -> Reporter:
    """Choose how to show progress: bars on a terminal, lines elsewhere."""
    target: Any = sys.stderr if stream is None else stream
    return LiveReporter(Console(file=target)) if target.isatty() else PlainReporter(target)
