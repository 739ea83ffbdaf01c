"""Keeps the number of jobs: asks the queue from time to time, and submits again what has ended.

A job that ends before any of its workers was seen is stillborn. Too many of those in a row, and no more are
submitted: what hinders them would hinder the next ones too, and the site's queue is not ours to flood.
"""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self

from distributed import Status

from pipeline.errors import WorkersUnavailable

STILLBORN_PER_JOB: Final = 3
_ANSWER_S: Final = 60.0

log = logging.getLogger(__name__)


class JobKeeper:
    """Replaces the jobs of a cluster that have ended, in a thread of its own."""

    def __init__(self, cluster: Any, list_jobs: Sequence[str], *, poll_s: float, logs: str) -> None:
        """Take up a cluster.

        Args:
            cluster: a SpecCluster of dask-jobqueue's jobs.
            list_jobs: command that prints the ids of the jobs that wait or run.
            poll_s: seconds between two questions.
            logs: folder with the output of the jobs, for the message.
        """
        self._cluster = cluster
        self._list_jobs = tuple(list_jobs)
        self._poll_s = poll_s
        self._logs = logs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="job-keeper", daemon=True)
        self._seen: set[str] = set()
        self._stillborn = 0
        self._problem: str | None = None

    def check_health(self) -> None:
        """Tell whether workers can still be hoped for.

        Raises:
            WorkersUnavailable: their jobs end at once, again and again.
        """
        if self._problem is not None:
            raise WorkersUnavailable(self._problem)

    def look(self) -> None:
        """Ask the queue once, and submit again what has ended."""
        alive = list_jobs(self._list_jobs)
        if alive is None or self._problem is not None:
            return
        jobs = {name: str(job.job_id) for name, job in self._cluster.workers.items() if job.job_id is not None}
        self._note_workers(jobs)
        ended = {name: job_id for name, job_id in jobs.items() if job_id not in alive}
        refused = {name: "" for name, job in self._cluster.workers.items() if job.status == Status.failed}
        ended = {**refused, **ended}
        self._count_stillborn(ended.values())
        missing = set(self._cluster.worker_spec) - set(self._cluster.workers)
        if self._problem is None and (ended or missing):
            log.warning("jobs that ended are submitted again: %s", ", ".join(sorted({*ended, *missing})))
            self._cluster.sync(self._replace, list(ended))

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask no more."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.look()
            except (RuntimeError, OSError, TimeoutError, ValueError) as error:
                # A queue that refuses now may accept at the next look; the time limit for workers ends it.
                log.warning("submitting jobs again: %s", " ".join(str(error).split()))

    def _note_workers(self, ids_by_name: dict[str, str]) -> None:
        """Take note of the jobs whose workers are there."""
        present = [str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()]
        for name, job_id in ids_by_name.items():
            if job_id not in self._seen and any(found == name or found.startswith(f"{name}-") for found in present):
                self._seen.add(job_id)
                self._stillborn = 0

    def _count_stillborn(self, ended: Iterable[str]) -> None:
        for job_id in ended:
            self._stillborn += job_id not in self._seen
            self._seen.discard(job_id)
        if self._stillborn >= STILLBORN_PER_JOB * len(self._cluster.worker_spec):
            self._problem = (
                f"waiting for workers: {self._stillborn} jobs in a row ended before their worker came; their output in "
                f"{self._logs} says why; the same command goes on once that is mended"
            )

    async def _replace(self, names: list[str]) -> None:
        for name in names:
            job = self._cluster.workers.pop(name, None)
            if job is not None:
                await job.close()
        # Submits whatever the specification has and the cluster has not.
        self._cluster.scale(len(self._cluster.worker_spec))


def list_jobs(command: Sequence[str]) -> set[str] | None:
    """Ask the queue for the ids of our jobs; None: it did not answer, and nothing can be concluded."""
    try:
        answer = subprocess.run(  # noqa: S603 - a command of the batch system, made of constants
            list(command), capture_output=True, text=True, timeout=_ANSWER_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("asking the queue with %s: %s", command[0], error)
        return None
    if answer.returncode != 0:
        log.warning("asking the queue with %s: %s", command[0], answer.stderr.strip() or answer.returncode)
        return None
    return {line.strip() for line in answer.stdout.splitlines() if line.strip()}
