"""What a running driver leaves for `sam4em status`: one small object, rewritten at intervals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from pipeline.errors import WorldError
from pipeline.ledger import ObjectStore, encode_document
from pipeline.run.loop import Tally
from pipeline.run.stream import StageCounts
from pipeline.run.timeline import TIMELINE_KEY, Timeline
from pipeline.telemetry import Progressed, Reporter, StageProgress

PROGRESS_KEY: Final = "progress.json"
SUMMARY_KEY: Final = "summary.json"
INTERVAL_S: Final = 5.0

log = logging.getLogger(__name__)


def busy_fractions(tally: Tally) -> dict[str, float]:
    """Tell per worker which part of the time it spent inside the model, until the last block was through the model.

    What comes after (stitching, writing) has nothing for a model to do, and would only dilute the share.
    """
    wall = tally.model_wall_seconds
    return {
        worker: round(seconds / wall, 4) if wall > 0 else 0.0
        for worker, seconds in sorted(tally.model_seconds_by_worker.items())
    }


class ProgressNotes:
    """Tells the reporter after every step, and the store now and then."""

    def __init__(
        self,
        store: ObjectStore,
        reporter: Reporter,
        *,
        interval_s: float = INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._reporter = reporter
        self._interval_s = interval_s
        self._clock = clock
        self._last_s = float("-inf")
        self._timeline = Timeline.of(store)

    def __call__(self, counts: Mapping[str, StageCounts], tally: Tally) -> None:
        """Take up where the run stands."""
        busy = busy_fractions(tally)
        mean = sum(busy.values()) / len(busy) if busy else None
        stages = {
            name: StageProgress(count.total, count.done, count.failed + count.blocked, count.running)
            for name, count in counts.items()
        }
        peak = max(tally.peak_bytes_by_worker.values(), default=0)
        self._reporter.update(Progressed(stages, len(busy), mean, peak, tally.num_retried))
        self._timeline.note(tally.wall_seconds, {name: count.done for name, count in counts.items()}, len(busy), mean)
        now = self._clock()
        if now - self._last_s >= self._interval_s:
            self._last_s = now
            self.write(counts, tally)

    def write(self, counts: Mapping[str, StageCounts], tally: Tally) -> None:
        """Put the object; a store that fails now is no reason to stop."""
        document: dict[str, Any] = {
            "time_s": time.time(),
            "wall_seconds": round(tally.wall_seconds, 3),
            "num_finished_by_stage": dict(tally.num_by_stage),
            "num_retried": tally.num_retried,
            "running": {name: count.running for name, count in counts.items()},
            "blocked": {name: count.blocked for name, count in counts.items()},
            "busy_fraction_by_worker": busy_fractions(tally),
        }
        try:
            self._store.put(PROGRESS_KEY, encode_document(document))
            self._store.put(TIMELINE_KEY, encode_document(self._timeline.document()))
        except WorldError as error:
            log.warning("progress could not be written: %s", error)
