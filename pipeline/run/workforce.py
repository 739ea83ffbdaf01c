"""What a driver knows of the scheduler and the workers behind a client, and when it gives up on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from distributed import Client

from pipeline.errors import SchedulerUnavailable, WorkersUnavailable

# How long the connection to the scheduler may be away before the run is given up.
LOST_SCHEDULER_S: Final = 20.0
WORKERS_REFRESH_S: Final = 1.0


class Workforce:
    """Scheduler and workers, as last seen."""

    def __init__(
        self, client: Client, offers: frozenset[str], worker_timeout_s: float, check_health: Callable[[], None]
    ) -> None:
        """Keep what is given; asks nobody.

        Args:
            client: connected; workers may still come and go.
            offers: resources that workers offer, now or later.
            worker_timeout_s: a lane may be without a worker for so long.
            check_health: raises where no worker will ever come.
        """
        self.offers = offers
        self._client = client
        self._worker_timeout_s = worker_timeout_s
        self._check_health = check_health
        self._last_contact_s = time.monotonic()
        self._asked_s = float("-inf")
        self._workers: dict[str, dict[str, Any]] = {}
        self._seen_s: dict[str, float] = {}

    @property
    def is_connected(self) -> bool:
        """Whether the scheduler answers."""
        return bool(self._client.status == "running")

    def of_lane(self, lane: str) -> list[dict[str, Any]]:
        """Give the workers that may carry out the tasks of a lane, as the scheduler describes them."""
        return [info for info in self._known().values() if lane not in self.offers or lane in info.get("resources", {})]

    def check_connection(self) -> None:
        """Refuse to wait for a scheduler that is gone.

        Raises:
            SchedulerUnavailable: it went away.
        """
        now = time.monotonic()
        if self.is_connected:
            self._last_contact_s = now
        elif self._client.status == "closed" or now - self._last_contact_s > LOST_SCHEDULER_S:
            # A client that could not connect again closes for good.
            raise self.scheduler_lost()

    def check_workers(self, lanes: Iterable[str]) -> None:
        """Refuse to wait for workers for ever.

        Args:
            lanes: those that have tasks out.

        Raises:
            WorkersUnavailable: for too long there was nobody to carry them out.
        """
        self._check_health()
        now = time.monotonic()
        self._seen_s = {
            lane: now if self.of_lane(lane) else self._seen_s.get(lane, now) for lane in sorted(lanes, reverse=True)
        }
        for lane, seen_s in self._seen_s.items():
            if now - seen_s > self._worker_timeout_s:
                whom = f"offers {lane}" if lane in self.offers else "is connected"
                raise WorkersUnavailable(
                    f"running tasks: for {self._worker_timeout_s:.0f} s there was no worker that {whom}; what is done "
                    f"is recorded, the same command goes on from there; start workers, or wait longer with "
                    f"cluster.worker_timeout_minutes"
                )

    def keys_at_work(self) -> set[str]:
        """Give the keys of the tasks that workers have begun, or are about to."""
        processing: Mapping[str, Iterable[str]] = self._client.processing() if self.is_connected else {}
        return {key for keys in processing.values() for key in keys}

    def scheduler_lost(self) -> SchedulerUnavailable:
        """Say that the scheduler went away."""
        address = self._client.scheduler.address if self._client.scheduler else "unknown"
        return SchedulerUnavailable(
            f"running tasks: the scheduler at {address} went away; what is done is recorded, the same command "
            f"goes on from there once a scheduler is running"
        )

    def _known(self) -> dict[str, dict[str, Any]]:
        now = time.monotonic()
        if now - self._asked_s > WORKERS_REFRESH_S and self.is_connected:
            self._asked_s = now
            # A connection that breaks during the question leaves an answer without workers: keep the last one.
            self._workers = dict(self._client.scheduler_info(n_workers=-1).get("workers", self._workers))
        return self._workers
