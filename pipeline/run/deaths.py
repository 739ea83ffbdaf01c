"""Why worker processes died: the nannies tell, and the driver remembers until it has to explain a lost task.

    crashed              a signal of the processor's own: SIGSEGV, SIGBUS, SIGILL, SIGFPE, or an abort
    out of memory        its nanny killed it, since it held more than its limit
    killed from outside  SIGKILL or SIGTERM that its nanny did not send: the system where memory ran out, or somebody
    ended                with an exit status of its own
    nobody told          its machine is gone, it froze, or it had no nanny

Dask itself only says that a worker is gone. The nanny is told the exit status but keeps it; a plugin passes it on.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable
from typing import Any, Final

from distributed import Client, Nanny, NannyPlugin

from pipeline.errors import WorkerCrashed, WorkerDied, WorkerOutOfMemory
from pipeline.run.completion import TaskError

# Dask's own topic for what a nanny does to a worker that holds too much. Source: distributed/worker_memory.py.
MEMORY_TOPIC: Final = "worker-restart-memory"
# The nanny's word is waited for so long: it travels another way than the news that the worker is gone.
REPORT_S: Final = 10.0
_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})

log = logging.getLogger(__name__)


class DeathWatch(NannyPlugin):
    """Passes on how a nanny's worker process ended."""

    def __init__(self, topic: str) -> None:
        self.name = topic
        self._undo: Callable[[], None] | None = None

    def setup(self, nanny: Nanny) -> None:
        """Listen to the process at work and to those that follow it."""
        follow = getattr(nanny, "_on_worker_exit_sync", None)
        if follow is None or nanny.process is None:
            log.warning("this version of Dask does not tell why workers die")
            return
        topic = self.name

        def pass_on(exit_status: int) -> None:
            try:
                event = {"worker": nanny.worker_address, "nanny": nanny.address, "exit_status": exit_status}
                nanny.log_event(topic, event)
            finally:
                # Whatever becomes of the news: the nanny must start the worker anew.
                follow(exit_status)

        def undo() -> None:
            nanny._on_worker_exit_sync = follow  # type: ignore[method-assign]
            if nanny.process is not None:
                nanny.process.on_exit = follow

        nanny._on_worker_exit_sync = pass_on  # type: ignore[method-assign]
        nanny.process.on_exit = pass_on
        self._undo = undo

    def teardown(self, nanny: Nanny) -> None:
        """Stop listening."""
        del nanny
        if self._undo is not None:
            self._undo()


class Deaths:
    """What is known of the workers that died while one executor was at work."""

    def __init__(self, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._clock = clock
        self._exit_status: dict[str, int] = {}
        self._nameless: dict[str, int] = {}
        self._nannies: dict[str, str] = {}
        self._held_bytes: dict[str, int] = {}
        self._noticed_s: dict[str, float] = {}
        self._victims: dict[str, set[str]] = {}

    def listen(self, client: Client) -> None:
        """Ask the nannies to tell."""
        client.register_plugin(DeathWatch(self._topic))
        client.subscribe_topic(self._topic, lambda event: self.note_exit(event[1]))
        client.subscribe_topic(MEMORY_TOPIC, lambda event: self.note_memory(event[1]))

    def stop_listening(self, client: Client) -> None:
        """Take back what `listen` did."""
        client.unsubscribe_topic(self._topic)
        client.unsubscribe_topic(MEMORY_TOPIC)
        # A nanny that was starting its worker anew when the others were asked was passed over.
        with contextlib.suppress(KeyError):
            client.unregister_worker_plugin(self._topic, nanny=True)

    def note_exit(self, event: dict[str, Any]) -> None:
        """Take up how a process ended.

        One that died as soon as it was there had not told its nanny its address.
        """
        if event["worker"] is None:
            self._nameless[event["nanny"]] = event["exit_status"]
        else:
            self._exit_status[event["worker"]] = event["exit_status"]

    def note_memory(self, event: dict[str, Any]) -> None:
        """Take up that a nanny ends a process that holds too much."""
        self._held_bytes[event["worker"]] = event["rss"]

    def note_victim(self, worker: str, nanny: str | None, key: str) -> None:
        """Take up that a task was with a worker, a child of a nanny, when it died."""
        self._nannies[worker] = nanny or ""
        self._noticed_s.setdefault(worker, self._clock())
        self._victims.setdefault(worker, set()).add(key)

    def is_explained(self, worker: str) -> bool:
        """Whether no more will be known of a death: its nanny has spoken, or had the time to."""
        waited_s = self._clock() - self._noticed_s.get(worker, float("-inf"))
        return self._status_of(worker) is not None or waited_s > REPORT_S

    def explain(self, worker: str) -> TaskError:
        """Say why a worker died, as the failure of a task that it held."""
        held, status = self._held_bytes.get(worker), self._status_of(worker)
        kind, how = _cause(held, status)
        return TaskError(
            kind.__name__,
            f"worker {worker} {how}",
            retry=True,
            is_worker_death=True,
            # A machine that is taken away three times is no proof against a block; a crash with it alone is.
            is_doubtful=kind is WorkerDied or len(self._victims.get(worker, ())) > 1,
        )

    def _status_of(self, worker: str) -> int | None:
        return self._exit_status.get(worker, self._nameless.get(self._nannies.get(worker, "")))


def _cause(held_bytes: int | None, exit_status: int | None) -> tuple[type[WorkerDied], str]:
    if held_bytes is not None:
        return WorkerOutOfMemory, f"was ended for memory: it held {held_bytes:,} bytes, near to its limit or beyond"
    if exit_status is None:
        return WorkerDied, "died and nobody could tell why: its machine is gone, it froze, or it had no nanny"
    if exit_status >= 0:
        return WorkerDied, f"ended by itself with exit status {exit_status}"
    name = _signal_name(-exit_status)
    if -exit_status in _CRASHES:
        return WorkerCrashed, f"crashed with {name}: compiled code failed"
    return WorkerDied, f"was killed by {name} from outside: by the system where memory ran out, or by somebody"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
