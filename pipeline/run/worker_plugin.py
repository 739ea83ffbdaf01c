"""The worker's side of `dask_executor`: holds the stages, carries tasks out, reports at once."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Sequence

from distributed import Worker, WorkerPlugin, get_worker

from pipeline.errors import ConfigError, OurError
from pipeline.run.completion import Completion, StageSet
from pipeline.run.handshake import CodeIdentity, code_identities, compare_code
from pipeline.run.stream import Task
from pipeline.run.work import WorkerRoom


class RoomPlugin(WorkerPlugin):
    """Holds the stages on a worker; opened by the first task."""

    def __init__(self, stage_set: StageSet, code: tuple[CodeIdentity, ...], name: str) -> None:
        self.name = name
        self._stage_set = stage_set
        self._code = code
        self._room: WorkerRoom | None = None
        self._problem: str | None = None

    def setup(self, worker: Worker) -> None:
        """Compare the code and make ready; runs in the worker's event loop, so it must be quick."""
        self._problem = compare_code(self._code, code_identities(), worker.address)
        self._room = WorkerRoom(self._stage_set)
        self._room.open_early()
        if threading.current_thread() is threading.main_thread():
            # Ctrl-C reaches every process of the terminal; only the driver acts on it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def teardown(self, worker: Worker) -> None:
        """Let go of what is open."""
        del worker
        if self._room is not None:
            self._room.close()

    def run_all(self, tasks: Sequence[Task], worker: str) -> list[Completion]:
        """Carry out tasks.

        Raises:
            ConfigError: this worker runs other code than the driver.
        """
        if self._problem is not None or self._room is None:
            raise ConfigError(self._problem or f"worker {worker} is not set up")
        return self._room.run_all(tasks, worker)


def run_on_worker(plugin_name: str, key: str, stage: str, indexes: tuple[int, ...]) -> list[Completion]:
    """Carry out tasks of one stage on the worker that this runs on, and tell the driver."""
    worker = get_worker()
    plugin = worker.plugins[plugin_name]
    if not isinstance(plugin, RoomPlugin):
        raise OurError(f"worker {worker.address} has no stages under {plugin_name}")
    completions = plugin.run_all([Task(stage, index) for index in indexes], worker.address)
    worker.log_event(plugin_name, (key, pickle.dumps(completions)))
    return completions
