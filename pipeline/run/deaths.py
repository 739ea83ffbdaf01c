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
from dataclasses import dataclass
from typing import Any, Final

from distributed import Client, Nanny, NannyPlugin
from distributed.comm.addressing import get_address_host

from pipeline.errors import WorkerCrashed, WorkerDied, WorkerOutOfMemory
from pipeline.run.completion import TaskError

# Dask's own topic for what a nanny does to a worker that holds too much. Source: distributed/worker_memory.py.
MEMORY_TOPIC: Final = "worker-restart-memory"
# The nanny's word is waited for so long: it travels another way than the news that the worker is gone.
REPORT_S: Final = 10.0
_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT})

log = logging.getLogger(__name__)


class DeathWatch(NannyPlugin):
    """Passes on how a nanny's worker process ended.

    By process id: a nanny learns its worker's address a little later than the scheduler, which may have sent it a task
    by then. One that dies at once has for its nanny no address, or that of the worker before it.
    """

    def __init__(self, topic: str) -> None:
        self.name = topic
        self._undo: Callable[[], None] | None = None

    def setup(self, nanny: Nanny) -> None:
        """Listen to the process at work and to those that follow it."""
        keeper = nanny.process
        follow = getattr(keeper, "mark_stopped", None)
        if keeper is None or follow is None:
            log.warning("this version of Dask does not tell why workers die")
            return
        topic = self.name

        def pass_on() -> None:
            ended = keeper.process
            try:
                if ended is not None:
                    event = {"nanny": nanny.address, "pid": ended.pid, "exit_status": ended.exitcode}
                    nanny.log_event(topic, event)
            finally:
                # Whatever becomes of the news: the nanny must start the worker anew.
                follow()

        def undo() -> None:
            keeper.mark_stopped = follow  # type: ignore[method-assign]

        keeper.mark_stopped = pass_on  # type: ignore[method-assign]
        self._undo = undo

    def teardown(self, nanny: Nanny) -> None:
        """Stop listening."""
        del nanny
        if self._undo is not None:
            self._undo()


@dataclass(frozen=True)
class Process:
    """A worker process; its address may go to another one later."""

    host: str
    pid: int

    @classmethod
    def of(cls, address: str, pid: int) -> Process:
        """Name a process by an address on its machine, its own or its nanny's."""
        return cls(get_address_host(address), pid)


class Deaths:
    """What is known of the workers that died while one executor was at work."""

    def __init__(self, topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._clock = clock
        self._exit_status: dict[Process, int] = {}
        self._held_bytes: dict[Process, int] = {}
        self._noticed_s: dict[Process, float] = {}
        self._victims: dict[Process, set[str]] = {}

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
        """Take up how a process ended."""
        self._exit_status[Process.of(event["nanny"], event["pid"])] = event["exit_status"]

    def note_memory(self, event: dict[str, Any]) -> None:
        """Take up that a nanny ends a process that holds too much; one whose address it never had is left out."""
        if event["worker"] is not None:
            self._held_bytes[Process.of(event["worker"], event["pid"])] = event["rss"]

    def note_victim(self, process: Process, key: str) -> None:
        """Take up that a task was with a worker when it died."""
        self._noticed_s.setdefault(process, self._clock())
        self._victims.setdefault(process, set()).add(key)

    def is_explained(self, process: Process) -> bool:
        """Whether no more will be known of a death: its nanny has spoken, or had the time to."""
        waited_s = self._clock() - self._noticed_s.get(process, float("-inf"))
        return process in self._exit_status or waited_s > REPORT_S

    def explain(self, worker: str, process: Process) -> TaskError:
        """Say why a worker died, as the failure of a task that it held."""
        kind, how = _cause(self._held_bytes.get(process), self._exit_status.get(process))
        return TaskError(
            kind.__name__,
            f"worker {worker} {how}",
            retry=True,
            is_worker_death=True,
            # A machine that is taken away three times is no proof against a block; a crash with it alone is.
            is_doubtful=kind is WorkerDied or len(self._victims.get(process, ())) > 1,
        )


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
