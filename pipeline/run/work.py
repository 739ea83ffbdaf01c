"""What runs on a worker: open the stages once, carry out tasks, tell memory and time."""

from __future__ import annotations

import contextlib
import logging
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import Sam4emError
from pipeline.run.completion import Completion, StageRoom, StageSet, describe_error
from pipeline.run.stream import Task

log = logging.getLogger(__name__)

_STATUS = Path("/proc/self/status")


def peak_memory_bytes() -> int:
    """Give the largest resident memory that this process has had.

    Linux's count of this program (source: proc_pid_status(5), VmHWM). Where there is none, that of getrusage, in which
    a child keeps the memory of the process that started it.
    """
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class WorkerRoom:
    """The stages of one run on one worker; opened by the first task, in a thread that may take its time."""

    def __init__(self, stage_set: StageSet) -> None:
        self._stage_set = stage_set
        self._lock = threading.Lock()
        self._room: StageRoom | None = None

    def run_all(self, tasks: Sequence[Task], worker: str) -> list[Completion]:
        """Carry out tasks one after the other; an error of one does not keep the others from being done."""
        return [self._run(task, worker) for task in tasks]

    def open_early(self) -> None:
        """Begin to open in a thread of its own: importing the libraries of every format takes seconds."""
        threading.Thread(target=self._try_to_open, name="open-stages", daemon=True).start()

    def close(self) -> None:
        """Let go of what is open."""
        with self._lock:
            if self._room is not None:
                self._room.close()
                self._room = None

    def _run(self, task: Task, worker: str) -> Completion:
        start = time.perf_counter()
        try:
            result, error = self._open().run(task), None
        # The boundary of a task: a bug in one must not fail the others of its group.
        except Exception as caught:
            if not isinstance(caught, Sam4emError | MemoryError):
                log.exception("%s: a bug", task)
            result, error = None, describe_error(caught)
        seconds = time.perf_counter() - start
        return Completion(task, result, error, worker, seconds, peak_memory_bytes())

    def _try_to_open(self) -> None:
        # What is wrong is told by the first task, which tries again.
        with contextlib.suppress(Sam4emError):
            self._open()

    def _open(self) -> StageRoom:
        with self._lock:
            if self._room is None:
                self._room = self._stage_set.open()
            return self._room
