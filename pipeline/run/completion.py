"""What comes back from a task, and the doors that stage sets and executors must have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from pipeline.errors import OurError, Sam4emError
from pipeline.ledger import UnitSum
from pipeline.run.stream import StageSpec, Task

_SPOIL_THE_WORKER: Final = ("DeviceLost", "DeviceOutOfMemory")


@dataclass(frozen=True)
class TaskResult:
    """What a task says of itself when it is done."""

    is_empty: bool = False
    """Nothing had to be written."""
    units: tuple[UnitSum, ...] = ()
    """The write units it owns."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time per phase; `model` is the time inside the segmenter."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Whatever the stage counts; summed over the run."""
    remark: str | None = None
    """What was done otherwise than planned; it goes into the journal, and a repeat may differ in its last bits."""


@dataclass(frozen=True)
class TaskError:
    """Why an attempt failed. Data, not an exception: it crosses processes whole."""

    kind: str
    """Class of the error."""
    message: str
    """Its text."""
    retry: bool
    """The same task may succeed later."""
    is_worker_death: bool = False
    """The worker process died while it held this task: this task or one beside it is to blame."""
    is_doubtful: bool = False
    """Other tasks were with the worker when it died, or it was killed from outside: this task need not be to blame."""
    needs_new_worker: bool = False
    """The worker that ran it is of no more use."""

    def __str__(self) -> str:
        """Write as in the journal."""
        return f"{self.kind}: {self.message}"


@dataclass(frozen=True)
class Completion:
    """One attempt at one task has ended."""

    task: Task
    """The task."""
    result: TaskResult | None
    """When it is done."""
    error: TaskError | None
    """When it failed."""
    worker: str = ""
    """Name of the worker, for counts per worker."""
    seconds: float = 0.0
    """Wall time of the attempt on the worker."""
    peak_bytes: int = 0
    """Largest resident memory of the worker so far; 0: not known."""


class StageRoom(Protocol):
    """The stages on one worker: plan, segmenter and stores, opened once."""

    def run(self, task: Task) -> TaskResult:
        """Carry out one task."""
        ...

    def close(self) -> None:
        """Let go of what is open."""
        ...


class StageSet(Protocol):
    """All stages of a run. Small, and it pickles: it is sent to every worker once."""

    def specs(self) -> Sequence[StageSpec]:
        """The stages in order."""
        ...

    def create(self) -> None:
        """Create the arrays that tasks write into; on the driver, before the first task; harmless again."""
        ...

    def open(self) -> StageRoom:
        """Open the stages on this worker."""
        ...


class Executor(Protocol):
    """Carries tasks out somewhere else, or here."""

    @property
    def windows(self) -> Mapping[str, int]:
        """Tasks worth having in flight now, per lane."""
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Take over tasks; returns at once."""
        ...

    def wait(self, timeout_s: float) -> list[Completion]:
        """Give what has ended since the last call; waits for the first one at most so long."""
        ...

    def cancel(self) -> int:
        """Drop what has not begun, and tell how many; what runs may run on, and its completion still comes."""
        ...

    def replace_worker(self, worker: str) -> None:
        """Start a worker's process anew."""
        ...


def describe_error(error: BaseException) -> TaskError:
    """Turn what a task raised into data."""
    kind = type(error).__name__
    if isinstance(error, Sam4emError):
        # A context that is lost, or a device that is full of what nobody will free, stays so as long as the process.
        return TaskError(kind, str(error), error.retry, needs_new_worker=kind in _SPOIL_THE_WORKER)
    if isinstance(error, MemoryError):
        return TaskError(kind, "the worker's host memory is full", retry=True)
    return TaskError(OurError.__name__, f"unexpected {kind}: {error}", retry=False)
