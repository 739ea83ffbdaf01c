"""Which task next: a cursor per stage, a bounded window, later stages first. Knows neither Dask nor stores.

    predict  done done done  run   run  ----->        a cursor only moves forward: every task is looked at once
    label    done done  run   *   wait  ----->        * ready: everything it needs is done
    match    done  run  wait ->                       wait: kept aside, at most `LOOKAHEAD` of them per stage
    resolve  (after all of match)

Memory: one bit per task for what is done, one more once something is lost, and the window. A task that needs
one that failed is blocked: counted, never waited for. So a stream always ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pipeline.errors import OurError
from pipeline.ledger import DoneMap

# Tasks kept aside per stage while they wait for others. Enough to pass by a few slow ones; looked through once
# per refill, so it is kept small.
LOOKAHEAD: Final = 64
# The window is refilled when this fraction of it is free: single refills cost 2.8 ms per task (PEERS.md 4).
REFILL_FRACTION: Final = 1 / 8

# The lane of the tasks that call the model, and that of all others. Workers offer resources under the same names.
DEVICE_LANE: Final = "device"
CPU_LANE: Final = "cpu"

Readiness = Literal["ready", "wait", "blocked"]


@dataclass(frozen=True, order=True, slots=True)
class Task:
    """One unit of work; idempotent."""

    stage: str
    """Name of the stage."""
    index: int
    """Index in the stage's grid."""

    def __str__(self) -> str:
        """Write as its key, stage-index."""
        return f"{self.stage}-{self.index}"


def _needs_nothing(index: int) -> Iterable[Task]:
    del index
    return ()


@dataclass(frozen=True)
class StageSpec:
    """What the stream must know of a stage."""

    name: str
    """Name, in keys, journal and logs."""
    num_tasks: int
    """Tasks are 0 .. num_tasks - 1."""
    needs: Callable[[int], Iterable[Task]] = _needs_nothing
    """Tasks of earlier stages that must be done before this one; O(1)."""
    after: tuple[str, ...] = ()
    """Stages that must be done as a whole before the first task."""
    lane: str = CPU_LANE
    """Which window its tasks count in: what runs on the accelerator never waits for room taken by others."""
    group_size: int = 1
    """Tasks sent to a worker together, where one is cheaper than sending it."""


class _Stage:
    """One stage on its way through its tasks."""

    def __init__(self, spec: StageSpec, done: DoneMap) -> None:
        self.spec = spec
        self.done = done
        self.lost: DoneMap | None = None
        self.is_cut = False
        self.num_failed = 0
        self.num_blocked = 0
        self.num_in_flight = 0
        self._cursor = 0
        self._waiting: list[int] = []
        self._seen_version = -1

    @property
    def is_settled(self) -> bool:
        return len(self.done) + self.num_failed + self.num_blocked == self.spec.num_tasks

    @property
    def has_losses(self) -> bool:
        return self.num_failed + self.num_blocked > 0

    def is_lost(self, index: int) -> bool:
        return self.is_cut or (self.lost is not None and index in self.lost)

    def lose(self, index: int) -> None:
        if self.lost is None:
            self.lost = DoneMap(self.spec.num_tasks)
        self.lost.add(index)

    def cut(self) -> None:
        """Give up every task that is not done."""
        self.is_cut = True
        self.num_blocked = self.spec.num_tasks - len(self.done) - self.num_failed

    def pull(self, room: int, version: int, judge: Callable[[int], Readiness]) -> list[int]:
        """Give at most `room` ready tasks: those kept aside, if anything has changed since, then new ones."""
        taken: list[int] = []
        if version != self._seen_version:
            kept, self._waiting = self._waiting, []
            for index in kept:
                if len(taken) < room:
                    self._sort(index, judge, taken)
                else:
                    self._waiting.append(index)
            self._seen_version = version if len(taken) < room else -1
        while len(taken) < room and len(self._waiting) < LOOKAHEAD:
            found = self.done.next_missing(self._cursor)
            if found is None:
                break
            self._cursor = found + 1
            self._sort(found, judge, taken)
        return taken

    def _sort(self, index: int, judge: Callable[[int], Readiness], taken: list[int]) -> None:
        readiness = judge(index)
        if readiness == "ready":
            taken.append(index)
        elif readiness == "wait":
            self._waiting.append(index)
        else:
            self.lose(index)
            self.num_blocked += 1


class StageCounts(NamedTuple):
    """Where a stage stands."""

    total: int
    done: int
    failed: int
    blocked: int
    running: int

    @property
    def to_do(self) -> int:
        """Tasks that were not handed out yet."""
        return self.total - self.done - self.failed - self.blocked - self.running


class TaskStream:
    """Hands out tasks whose needs are met, never more at a time than the windows allow."""

    def __init__(self, stages: Sequence[StageSpec], done: Mapping[str, DoneMap], windows: Mapping[str, int]) -> None:
        """Take up a run.

        Args:
            stages: in the order of the work; a stage may only need earlier ones.
            done: what is done, per stage; the caller adds to it before it calls `finish`.
            windows: most tasks in flight, per lane.
        """
        self._stages = {spec.name: _Stage(spec, done[spec.name]) for spec in stages}
        self._windows = dict(windows)
        self._in_flight = dict.fromkeys(windows, 0)
        self._version = 0
        for spec in stages:
            if spec.lane not in windows:
                raise OurError(f"stage {spec.name} runs in lane {spec.lane!r}, which has no window")

    @property
    def num_in_flight(self) -> int:
        """Tasks handed out and neither finished nor failed."""
        return sum(self._in_flight.values())

    @property
    def is_settled(self) -> bool:
        """Whether every task is done, failed or blocked."""
        return all(stage.is_settled for stage in self._stages.values())

    @property
    def num_failed(self) -> int:
        """Tasks that failed for good."""
        return sum(stage.num_failed for stage in self._stages.values())

    def resize(self, windows: Mapping[str, int]) -> None:
        """Change the windows: workers have come or gone. What is out stays out."""
        self._windows.update(windows)

    def counts(self) -> dict[str, StageCounts]:
        """Tell where every stage stands."""
        return {
            name: StageCounts(
                stage.spec.num_tasks,
                len(stage.done),
                stage.num_failed,
                stage.num_blocked,
                stage.num_in_flight,
            )
            for name, stage in self._stages.items()
        }

    def take(self) -> list[Task]:
        """Hand out what is ready, as far as the windows have room; later stages first.

        Raises:
            OurError: nothing is in flight, nothing is ready, and the run is not settled: needs that cannot be met.
        """
        taken: list[Task] = []
        while not taken:
            version = self._version
            for stage in reversed(self._stages.values()):
                taken += self._take_from(stage)
            if version == self._version:
                break
        if not taken and self.num_in_flight == 0 and not self.is_settled:
            raise OurError(f"no task can ever be ready: {self.counts()}")
        return taken

    def finish(self, task: Task) -> None:
        """Take note that a task is done; it is in the done map already."""
        self._leave(task)

    def fail(self, task: Task) -> None:
        """Take note that a task has failed for good; what needs it is blocked."""
        stage = self._stages[task.stage]
        stage.lose(task.index)
        stage.num_failed += 1
        self._leave(task)

    def _leave(self, task: Task) -> None:
        stage = self._stages[task.stage]
        stage.num_in_flight -= 1
        self._in_flight[stage.spec.lane] -= 1
        self._version += 1

    def _take_from(self, stage: _Stage) -> list[Task]:
        lane = stage.spec.lane
        room = self._windows[lane] - self._in_flight[lane]
        if room < max(1, int(self._windows[lane] * REFILL_FRACTION)) or stage.is_settled:
            return []
        if not self._is_open(stage):
            return []
        num_blocked = stage.num_blocked
        taken = stage.pull(room, self._version, lambda index: self._readiness(stage, index))
        self._version += stage.num_blocked != num_blocked
        stage.num_in_flight += len(taken)
        self._in_flight[lane] += len(taken)
        return [Task(stage.spec.name, index) for index in taken]

    def _is_open(self, stage: _Stage) -> bool:
        """Whether the stages before are done; cuts the stage when they never will be."""
        before = [self._stages[name] for name in stage.spec.after]
        if any(earlier.has_losses for earlier in before):
            stage.cut()
            self._version += 1
            return False
        return all(earlier.is_settled for earlier in before)

    def _readiness(self, stage: _Stage, index: int) -> Readiness:
        readiness: Readiness = "ready"
        for needed in stage.spec.needs(index):
            earlier = self._stages[needed.stage]
            if needed.index in earlier.done:
                continue
            if earlier.is_lost(needed.index):
                return "blocked"
            readiness = "wait"
        return readiness
