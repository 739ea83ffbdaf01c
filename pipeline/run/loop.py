"""The loop: hand out, wait, record. Ends when everything is done, failed or blocked, or when told to stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import StoreFull, StoreReadOnly, TaskFailed
from pipeline.ledger import Journal, Lease, TaskRecord
from pipeline.run.completion import Completion, Executor, TaskError, TaskResult
from pipeline.run.retries import Retries
from pipeline.run.stream import StageCounts, StageSpec, Task, TaskStream

WAIT_S: Final = 0.25
# What runs when a stop is asked for may end in this time and is then recorded.
GRACE_S: Final = 10.0
# The phase of a task that is spent inside the model.
MODEL_PHASE: Final = "model_s"

# After these no other task can write either.
_ENDS_THE_RUN: Final = {"StoreFull": StoreFull, "StoreReadOnly": StoreReadOnly}

log = logging.getLogger(__name__)


@dataclass
class Tally:
    """Sums over what one driver has seen; sparse, whatever the number of blocks."""

    started_s: float = field(default_factory=time.monotonic)
    """When the loop began, monotonic clock."""
    seconds_by_stage: dict[str, float] = field(default_factory=dict)
    """Wall time on workers per stage."""
    seconds_by_phase: dict[str, float] = field(default_factory=dict)
    """Wall time on workers per phase of a task."""
    model_seconds_by_worker: dict[str, float] = field(default_factory=dict)
    """Time inside the model per worker."""
    last_model_s: float | None = None
    """When the last block came back from a model, monotonic clock; None: none has."""
    peak_bytes_by_worker: dict[str, int] = field(default_factory=dict)
    """Largest resident memory per worker."""
    counters: dict[str, int] = field(default_factory=dict)
    """Counters of all tasks, as `stage.counter`."""
    num_by_stage: dict[str, int] = field(default_factory=dict)
    """Tasks done by this driver, per stage."""
    num_retried: int = 0
    """Attempts that failed and were tried again."""

    @property
    def num_finished(self) -> int:
        """Tasks done by this driver."""
        return sum(self.num_by_stage.values())

    @property
    def wall_seconds(self) -> float:
        """Time since the loop began."""
        return time.monotonic() - self.started_s

    @property
    def model_wall_seconds(self) -> float:
        """Time from the beginning of the loop until the last block came back from a model."""
        return 0.0 if self.last_model_s is None else self.last_model_s - self.started_s

    @property
    def model_seconds(self) -> float:
        """Time inside the model, summed over workers."""
        return sum(self.model_seconds_by_worker.values())

    def take_up(self, completion: Completion, result: TaskResult) -> None:
        """Add one finished task."""
        stage = completion.task.stage
        self.num_by_stage[stage] = self.num_by_stage.get(stage, 0) + 1
        _add(self.seconds_by_stage, stage, completion.seconds)
        for phase, seconds in result.seconds.items():
            _add(self.seconds_by_phase, phase, seconds)
        model_seconds = result.seconds.get(MODEL_PHASE, 0.0)
        worker = completion.worker
        _add(self.model_seconds_by_worker, worker, model_seconds)
        if model_seconds:
            self.last_model_s = time.monotonic()
        self.peak_bytes_by_worker[worker] = max(completion.peak_bytes, self.peak_bytes_by_worker.get(worker, 0))
        for name, count in result.counters.items():
            key = f"{stage}.{name}"
            self.counters[key] = self.counters.get(key, 0) + count


def _add(sums: dict[str, float], name: str, seconds: float) -> None:
    sums[name] = sums.get(name, 0.0) + seconds


class TaskLoop:
    """Drives the tasks of a run through an executor into the journal."""

    def __init__(
        self,
        specs: list[StageSpec],
        journal: Journal,
        lease: Lease,
        executor: Executor,
        *,
        retries: int,
        max_failed_tasks: int,
        on_change: Callable[[Mapping[str, StageCounts], Tally], None],
        tally: Tally | None = None,
    ) -> None:
        done = {name: stage.done for name, stage in journal.stages.items()}
        self._stream = TaskStream(specs, done, executor.windows)
        self._journal = journal
        self._lease = lease
        self._executor = executor
        self._retries = Retries(retries)
        self._max_failed_tasks = max_failed_tasks
        self._on_change = on_change
        self._num_out = 0
        self._last_straw: TaskError | None = None
        self.tally = tally or Tally()

    @property
    def counts(self) -> dict[str, StageCounts]:
        """Where every stage stands."""
        return self._stream.counts()

    def run(self, should_stop: Callable[[], bool]) -> bool:
        """Work until everything is settled or a stop is asked for; tells whether it is settled.

        Raises:
            RunLocked: the lease is lost.
            TaskFailed: more tasks have failed than the config allows.
            StoreFull: no space is left; so for StoreReadOnly.
            SchedulerUnavailable: the scheduler went away.
        """
        try:
            while not self._is_over() and self._last_straw is None and not should_stop():
                self._step()
            if not self._is_over():
                self._wind_down()
            if self._last_straw is not None:
                raise _ENDS_THE_RUN[self._last_straw.kind](
                    f"stopping the run: {self._last_straw.message}. The same command goes on once there is room to "
                    "write"
                )
        finally:
            self._journal.flush(self._lease.is_mine)
            self._on_change(self._stream.counts(), self.tally)
        return self._stream.is_settled

    def _step(self) -> None:
        self._lease.check()
        self._stream.resize(self._executor.windows)
        for task in self._retries.due(time.monotonic()):
            # One by one: a suspect must not take others with it.
            self._submit([task])
        self._submit(self._stream.take())
        if not self._num_out:
            self._submit(self._retries.last_resort())
        self._take_in(self._executor.wait(WAIT_S))
        if self._stream.num_failed > self._max_failed_tasks:
            raise TaskFailed(
                f"{self._stream.num_failed} tasks have failed, faults.max_failed_tasks allows "
                f"{self._max_failed_tasks}; `sam4em status` lists their errors"
            )

    def _wind_down(self) -> None:
        self._num_out -= self._executor.cancel()
        log.info("stopping: waiting up to %.0f s for %d tasks that run", GRACE_S, self._num_out)
        deadline = time.monotonic() + GRACE_S
        while self._num_out and time.monotonic() < deadline:
            completions = self._executor.wait(WAIT_S)
            self._take_in(completions)
            if not completions:
                self._lease.check()

    def _submit(self, tasks: list[Task]) -> None:
        if tasks:
            self._num_out += len(tasks)
            self._executor.submit(tasks)

    def _take_in(self, completions: list[Completion]) -> None:
        self._num_out -= len(completions)
        for completion in completions:
            if completion.result is not None:
                self._finish(completion, completion.result)
            elif completion.error is not None:
                self._fail(completion, completion.error)
        self._journal.flush_if_due(self._lease.is_mine)
        self._on_change(self._stream.counts(), self.tally)

    def _finish(self, completion: Completion, result: TaskResult) -> None:
        task = completion.task
        record = TaskRecord(
            task.index,
            "empty" if result.is_empty else "written",
            result.units,
            completion.seconds,
            self._retries.attempts(task),
            remark=result.remark,
        )
        self._journal.add(task.stage, record)
        self._retries.settle(task)
        self._stream.finish(task)
        self.tally.take_up(completion, result)

    def _fail(self, completion: Completion, error: TaskError) -> None:
        task = completion.task
        if error.needs_new_worker:
            self._executor.replace_worker(completion.worker)
        if self._retries.note_failure(task, error, time.monotonic()):
            self.tally.num_retried += 1
            log.warning("%s failed and is tried again: %s", task, error)
            return
        log.error("%s failed for good: %s", task, error)
        if error.kind in _ENDS_THE_RUN:
            self._last_straw = error
        attempts = self._retries.attempts(task) - 1
        self._journal.add(task.stage, TaskRecord(task.index, "failed", (), completion.seconds, attempts, str(error)))
        self._retries.settle(task)
        self._stream.fail(task)

    def _is_over(self) -> bool:
        return self._stream.is_settled and self._stream.num_in_flight == 0
