"""Carries tasks out on Dask workers. Dask schedules; what is done, and what to do next, it never knows.

One worker plugin brings the stages to every worker, once; a task is then a name and an index, submitted in
batches. A worker tells the driver at once what became of a task, as an event of a few hundred bytes through
the scheduler: a result that waited on the worker to be fetched would be lost with it, and its block computed
again. Dask's own retries are off: a task whose worker died comes back as such, and the loop decides.
"""

from __future__ import annotations

import logging
import pickle
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count, groupby
from types import TracebackType
from typing import Any, Final, Self

from distributed import Client, Future, KilledWorker

from pipeline.errors import ConfigError
from pipeline.run.completion import Completion, StageSet, describe_error
from pipeline.run.deaths import Deaths, Process
from pipeline.run.handshake import code_identities
from pipeline.run.stream import DEVICE_LANE, StageSpec, Task
from pipeline.run.worker_plugin import RoomPlugin, run_on_worker
from pipeline.run.workforce import Workforce

# The tasks a worker holds beyond those it runs, so that it never waits for the driver.
QUEUED_PER_THREAD: Final = 1
# Tasks are sent together until they take this long: sending one costs about 2 ms of driver and scheduler.
GROUP_S: Final = 0.02
LARGEST_GROUP: Final = 16
SPEED_MEMORY: Final = 0.9
# A minute without any worker, where the kind of cluster does not say otherwise.
WORKER_TIMEOUT_S: Final = 60.0
# Tasks whose worker died are looked for this often: they do not report.
SCAN_S: Final = 0.5

log = logging.getLogger(__name__)


class DaskExecutor:
    """An executor on a Dask client. The client stays the caller's."""

    def __init__(
        self,
        client: Client,
        stage_set: StageSet,
        *,
        tasks_per_worker: int,
        offers: frozenset[str] = frozenset({DEVICE_LANE}),
        worker_timeout_s: float = WORKER_TIMEOUT_S,
        check_health: Callable[[], None] = lambda: None,
    ) -> None:
        """Bring the stages to the workers.

        Args:
            client: connected; workers may still come and go.
            stage_set: the stages.
            tasks_per_worker: tasks in flight per worker and lane, those that wait on the worker included.
            offers: resources that workers offer, now or later: tasks of a lane of that name wait for such a worker.
            worker_timeout_s: the run is given up when a lane had no worker for so long.
            check_health: raises where no worker will ever come.

        Raises:
            ConfigError: a worker runs other code than the driver.
        """
        self._client = client
        self._specs: dict[str, StageSpec] = {spec.name: spec for spec in stage_set.specs()}
        self._tasks_per_worker = tasks_per_worker
        self._plugin = RoomPlugin(stage_set, code_identities(), f"sam4em-{id(self)}")
        self._futures: dict[str, Future[Any]] = {}
        self._groups: dict[str, list[Task]] = {}
        self._reports: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._late: set[str] = set()
        self._seconds: dict[str, float] = {}
        self._scanned_s = time.monotonic()
        self._numbers = count()
        self._workforce = Workforce(client, offers, worker_timeout_s, check_health)
        self._deaths = Deaths(f"{self._plugin.name}-deaths")
        self._deaths.listen(client)
        client.register_plugin(self._plugin)
        client.subscribe_topic(self._plugin.name, self._take_report)

    @property
    def windows(self) -> Mapping[str, int]:
        """See `Executor.windows`."""
        lanes: dict[str, int] = {}
        for lane in {spec.lane for spec in self._specs.values()}:
            workers = self._workforce.of_lane(lane)
            lanes[lane] = max(1, len(workers)) * self._tasks_per_worker
            if lane == DEVICE_LANE and lane in self._workforce.offers and workers:
                lanes[lane] = sum(int(info["resources"][lane]) + QUEUED_PER_THREAD for info in workers)
        return {lane: window * self._largest_group(lane) for lane, window in lanes.items()}

    def submit(self, tasks: Sequence[Task]) -> None:
        """See `Executor.submit`.

        Raises:
            SchedulerUnavailable: the scheduler went away.
        """
        self._workforce.check_connection()
        for stage, of_stage in groupby(sorted(tasks, key=lambda task: task.stage), lambda task: task.stage):
            self._submit_stage(self._specs[stage], list(of_stage))

    def wait(self, timeout_s: float) -> list[Completion]:
        """See `Executor.wait`.

        Raises:
            SchedulerUnavailable: the scheduler went away.
            WorkersUnavailable: there was no worker for too long.
            ConfigError: a worker runs other code than the driver.
        """
        completions = self._take_reports(timeout_s)
        now = time.monotonic()
        if not completions or now - self._scanned_s > SCAN_S:
            self._scanned_s = now
            completions += self._scan()
        return completions

    def cancel(self) -> int:
        """See `Executor.cancel`."""
        running = self._workforce.keys_at_work()
        dropped = {key: future for key, future in self._futures.items() if key not in running}
        num_dropped = sum(len(self._groups[key]) for key in dropped)
        for key in dropped:
            self._forget(key)
        if dropped:
            self._client.cancel(list(dropped.values()), force=True)
        return num_dropped

    def replace_worker(self, worker: str) -> None:
        """See `Executor.replace_worker`."""
        log.warning("starting worker %s anew", worker)
        self._client.restart_workers([worker], raise_for_error=False)

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drop what is still out."""
        self._futures.clear()
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._plugin.name)
            self._client.unregister_worker_plugin(self._plugin.name)
            self._deaths.stop_listening(self._client)

    def _submit_stage(self, spec: StageSpec, tasks: list[Task]) -> None:
        size = self._group_size(spec)
        groups = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        keys = [f"{group[0]}-{next(self._numbers)}" for group in groups]
        futures = self._client.map(
            run_on_worker,
            [self._plugin.name] * len(groups),
            keys,
            [spec.name] * len(groups),
            [tuple(task.index for task in group) for group in groups],
            key=keys,
            pure=False,
            retries=0,
            priority=list(self._specs).index(spec.name),
            resources={spec.lane: 1} if spec.lane in self._workforce.offers else None,
        )
        for key, group, future in zip(keys, groups, futures, strict=True):
            self._groups[key] = group
            self._futures[key] = future

    def _take_report(self, event: tuple[float, tuple[str, bytes]]) -> None:
        """Take up what a worker tells; called in the client's event loop."""
        key, data = event[1]
        self._reports.put((key, data))

    def _take_reports(self, timeout_s: float) -> list[Completion]:
        completions: list[Completion] = []
        try:
            report = self._reports.get(timeout=timeout_s)
            while True:
                completions += self._open_report(*report)
                report = self._reports.get_nowait()
        except queue.Empty:
            return completions

    def _open_report(self, key: str, data: bytes) -> list[Completion]:
        if key not in self._futures:
            return []
        self._forget(key)
        found: list[Completion] = pickle.loads(data)  # noqa: S301 - from our own worker
        for completion in found:
            stage = completion.task.stage
            before = self._seconds.get(stage, completion.seconds)
            self._seconds[stage] = SPEED_MEMORY * before + (1 - SPEED_MEMORY) * completion.seconds
        return found

    def _group_size(self, spec: StageSpec) -> int:
        seconds = self._seconds.get(spec.name)
        if seconds is None:
            return spec.group_size
        return max(spec.group_size, min(LARGEST_GROUP, int(GROUP_S / max(seconds, 1e-6))))

    def _largest_group(self, lane: str) -> int:
        return max(self._group_size(spec) for spec in self._specs.values() if spec.lane == lane)

    def _scan(self) -> list[Completion]:
        """Look for tasks that ended without a report: errors, and reports that got lost."""
        self._workforce.check_connection()
        self._workforce.check_workers({self._specs[group[0].stage].lane for group in self._groups.values()})
        completions: list[Completion] = []
        ended = [(key, future) for key, future in self._futures.items() if future.status != "pending"]
        late, self._late = self._late, set()
        errors = {key: self._error_of(future) for key, future in ended if future.status != "finished"}
        for key, error in errors.items():
            if isinstance(error, KilledWorker):
                self._deaths.note_victim(Process.of(error.last_worker.address, error.last_worker.pid), key)
        for key, future in ended:
            if key in errors:
                completions += self._explain(key, errors[key])
            elif key in late:
                completions += self._client.gather(future)
                self._forget(key)
            else:
                self._late.add(key)
        return completions

    def _error_of(self, future: Future[Any]) -> BaseException:
        """Give what a future without a result ended with.

        Raises:
            SchedulerUnavailable: the scheduler forgot the task.
            ConfigError: the worker runs other code.
        """
        if future.status in ("cancelled", "lost"):
            raise self._workforce.scheduler_lost()
        error: BaseException = future.exception()
        if isinstance(error, ConfigError):
            raise error
        return error

    def _explain(self, key: str, error: BaseException) -> list[Completion]:
        """Turn an error into one failed attempt per task; none yet where more may become known of a worker's death."""
        told = describe_error(error)
        if isinstance(error, KilledWorker):
            worker = error.last_worker
            process = Process.of(worker.address, worker.pid)
            if not self._deaths.is_explained(process):
                return []
            told = self._deaths.explain(worker.address, process)
        completions = [Completion(task, None, told) for task in self._groups[key]]
        self._forget(key)
        return completions

    def _forget(self, key: str) -> None:
        del self._futures[key]
        del self._groups[key]
