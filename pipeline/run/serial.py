"""Carries tasks out in this process, one after the other: tests, debugging, the Python interface."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from pipeline.errors import Sam4emError
from pipeline.run.completion import Completion, StageRoom, StageSet, describe_error
from pipeline.run.stream import Task
from pipeline.run.work import peak_memory_bytes

WINDOW: Final = 8


class SerialExecutor:
    """One task per call of `wait`. A bug in a stage is raised, not recorded."""

    def __init__(self, stage_set: StageSet) -> None:
        self._stage_set = stage_set
        self._lanes = {spec.lane for spec in stage_set.specs()}
        self._room: StageRoom | None = None
        self._queue: deque[Task] = deque()

    @property
    def windows(self) -> Mapping[str, int]:
        """See `Executor.windows`."""
        return dict.fromkeys(self._lanes, WINDOW)

    def submit(self, tasks: Sequence[Task]) -> None:
        """See `Executor.submit`."""
        self._queue.extend(tasks)

    def wait(self, timeout_s: float) -> list[Completion]:
        """Carry out the next task; an idle executor waits out the time."""
        if not self._queue:
            time.sleep(timeout_s)
            return []
        if self._room is None:
            self._room = self._stage_set.open()
        task = self._queue.popleft()
        start = time.perf_counter()
        try:
            result, error = self._room.run(task), None
        except (Sam4emError, MemoryError) as caught:
            result, error = None, describe_error(caught)
        seconds = time.perf_counter() - start
        return [Completion(task, result, error, "serial", seconds, peak_memory_bytes())]

    def cancel(self) -> int:
        """See `Executor.cancel`."""
        num_dropped = len(self._queue)
        self._queue.clear()
        return num_dropped

    def replace_worker(self, worker: str) -> None:
        """Open the stages anew at the next task."""
        del worker
        self._close_room()

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what is open."""
        self._close_room()

    def _close_room(self) -> None:
        if self._room is not None:
            self._room.close()
            self._room = None
