"""What becomes of a task whose attempt failed: later, alone, or never again.

an error that may pass            again after a growing delay, at most `retries` times
the worker died the first time    again as before: a machine may die on any task
the worker died again             in quarantine: one suspect at a time, beside tasks that are not suspect
... crashed, with it alone        failed: it kills its workers
... with others, or from outside  alone: when nothing else is left to do, so that no innocent is condemned
... and even so                   failed
any other error                   failed
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass
from typing import Final

from pipeline.run.completion import TaskError
from pipeline.run.stream import Task

FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 30.0
DEATHS_TO_QUARANTINE: Final = 2


@dataclass
class _History:
    failures: int = 0
    deaths: int = 0
    is_last_resort: bool = False


class Retries:
    """Remembers the tasks that failed at least once and are not settled."""

    def __init__(self, retries: int, first_delay_s: float = FIRST_DELAY_S) -> None:
        self._retries = retries
        self._first_delay_s = first_delay_s
        self._histories: dict[Task, _History] = {}
        self._delayed: list[tuple[float, Task]] = []
        self._suspects: deque[Task] = deque()
        self._suspect_out: Task | None = None
        self._loners: deque[Task] = deque()

    @property
    def num_waiting(self) -> int:
        """Tasks that will be tried again and are not in flight."""
        return len(self._delayed) + len(self._suspects) + len(self._loners)

    def attempts(self, task: Task) -> int:
        """How often a task was tried, the attempt that has just ended included."""
        history = self._histories.get(task)
        return 1 if history is None else history.failures + history.deaths + 1

    def note_failure(self, task: Task, error: TaskError, now_s: float) -> bool:
        """Take up a failed attempt; tells whether the task will be tried again."""
        self._release(task)
        history = self._histories.setdefault(task, _History())
        if error.is_worker_death:
            return self._note_death(task, history, now_s, is_doubtful=error.is_doubtful)
        history.failures += 1
        if not error.retry or history.failures > self._retries:
            return False
        delay_s = min(self._first_delay_s * 2 ** (history.failures - 1), LONGEST_DELAY_S)
        heapq.heappush(self._delayed, (now_s + delay_s, task))
        return True

    def _note_death(self, task: Task, history: _History, now_s: float, *, is_doubtful: bool) -> bool:
        history.deaths += 1
        if history.deaths < DEATHS_TO_QUARANTINE:
            heapq.heappush(self._delayed, (now_s, task))
            return True
        if history.deaths == DEATHS_TO_QUARANTINE:
            self._suspects.append(task)
            return True
        if history.is_last_resort or not is_doubtful:
            return False
        history.is_last_resort = True
        self._loners.append(task)
        return True

    def settle(self, task: Task) -> None:
        """Forget a task: it is done or failed for good."""
        self._release(task)
        self._histories.pop(task, None)

    def due(self, now_s: float) -> list[Task]:
        """Give the tasks to try again now."""
        tasks: list[Task] = []
        while self._delayed and self._delayed[0][0] <= now_s:
            tasks.append(heapq.heappop(self._delayed)[1])
        if self._suspect_out is None and self._suspects:
            self._suspect_out = self._suspects.popleft()
            tasks.append(self._suspect_out)
        return tasks

    def last_resort(self) -> list[Task]:
        """Give one task that must be alone; to be asked when nothing is out and nothing else can be handed out."""
        return [self._loners.popleft()] if self._loners else []

    def _release(self, task: Task) -> None:
        if task == self._suspect_out:
            self._suspect_out = None
