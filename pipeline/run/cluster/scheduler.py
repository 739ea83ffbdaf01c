"""A scheduler that somebody else has started: at an address, or told by its scheduler file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import dask
from distributed import Client

from pipeline.config.clusters import SchedulerCluster
from pipeline.errors import ConfigError, SchedulerUnavailable, WorkersUnavailable
from pipeline.run.cluster.settings import CONNECT_S, DASK_SETTINGS, OpenCluster, make_security

_POLL_S: Final = 0.5


@contextmanager
def remote_cluster(section: SchedulerCluster) -> Iterator[OpenCluster]:
    """Connect to a scheduler that is running; it stays when the context ends.

    Raises:
        ConfigError: the scheduler file or a certificate is not usable.
        SchedulerUnavailable: nobody answers within a few seconds.
        WorkersUnavailable: it has no worker, and none came within the time limit.
    """
    address = section.address or read_scheduler_file(section.file or "")
    security = make_security(section.tls)
    with dask.config.set(DASK_SETTINGS):
        try:
            client = Client(address, timeout=CONNECT_S, set_as_default=False, security=security)
        except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
            raise SchedulerUnavailable(
                f"connecting to the scheduler at {address}: nobody answered within {CONNECT_S:.0f} s "
                f"({type(error).__name__}: {str(error).strip() or 'no reason given'}); start one with `dask scheduler` "
                "and give its address, with cluster.tls where it is encrypted, or set cluster.kind: local"
            ) from error
        with client:
            limit_s = 60 * section.worker_timeout_minutes
            offers = wait_for_offers(client, address, limit_s) if section.offers is None else frozenset(section.offers)
            yield OpenCluster(client, offers, limit_s)


def read_scheduler_file(path: str) -> str:
    """Give the address that a scheduler file holds.

    Raises:
        ConfigError: the file is not there, or holds no address.
    """
    try:
        return str(json.loads(Path(path).read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"connecting to a scheduler: cluster.file {path} holds no address ({type(error).__name__}: {error}); "
            "`dask scheduler --scheduler-file` writes it when the scheduler is up"
        ) from error


def wait_for_offers(client: Client, address: str, limit_s: float) -> frozenset[str]:
    """Wait for the first worker, and tell which resources those that are there offer.

    Raises:
        WorkersUnavailable: none came within the limit.
    """
    deadline = time.monotonic() + limit_s
    while not (workers := client.scheduler_info(n_workers=-1)["workers"]):
        if time.monotonic() > deadline:
            raise WorkersUnavailable(
                f"waiting for workers: the scheduler at {address} has none, and none came within "
                f"cluster.worker_timeout_minutes: {limit_s / 60:g}; start them with `dask worker`"
            )
        time.sleep(_POLL_S)
    return frozenset(name for worker in workers.values() for name in worker.get("resources", {}))
