"""Stages that only leave a mark per task, and misbehave where they are told to. Importable on the workers."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import DeviceLost, DeviceOutOfMemory, StoreUnavailable, WeightsError
from pipeline.run.completion import TaskResult
from pipeline.run.stream import StageSpec, Task

FAULTS = {
    "unavailable": StoreUnavailable,
    "weights": WeightsError,
    "bug": ValueError,
    "lost": DeviceLost,
    "full": DeviceOutOfMemory,
}


@dataclass(frozen=True)
class NoopStages:
    num_blocks: int
    folder: str = ""
    faults: dict = field(default_factory=dict)
    """Task -> (what, how often)."""
    seconds: float = 0.0
    group_size: int = 1

    def specs(self):
        last = self.num_blocks - 1
        return [
            StageSpec("predict", self.num_blocks, lane="device"),
            StageSpec(
                "label",
                self.num_blocks,
                lambda index: [Task("predict", index), Task("predict", min(index + 1, last))],
                group_size=self.group_size,
            ),
            StageSpec("resolve", 1, after=("label",)),
        ]

    def create(self):
        pass

    def open(self):
        return NoopRoom(self)

    def __getstate__(self):
        return dict(self.__dict__)


class NoopRoom:
    def __init__(self, stages):
        self._stages = stages

    def run(self, task):
        if task in self._stages.faults:
            self._misbehave(task, *self._stages.faults[task])
        if self._stages.seconds:
            time.sleep(self._stages.seconds)
        if self._stages.folder:
            self._leave_mark("done", task)
        return TaskResult(seconds={"model_s": self._stages.seconds}, counters={"tasks": 1})

    def close(self):
        pass

    def _misbehave(self, task, what, how_often):
        if self._leave_mark("tried", task) > how_often:
            return
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "segfault":
            ctypes.string_at(0)
        if what == "hoard":
            _hoard()
        if what == "exit":
            os._exit(3)
        raise FAULTS[what](f"{task} cannot")

    def _leave_mark(self, kind, task):
        """Append one byte to a task's file; gives its size."""
        path = Path(self._stages.folder) / f"{kind}-{task}"
        with path.open("ab") as file:
            file.write(b".")
            return file.tell()


def _hoard():
    """Hold more and more memory, as fast as a nanny can look."""
    held = []
    while True:
        held.append(bytearray(64 * 2**20))
        time.sleep(0.02)
