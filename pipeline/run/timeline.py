"""How a run went over time: a few hundred points per call of the driver, kept in `timeline.json`.

When there are too many points every second one is dropped and the next ones come half as often, so a run of weeks keeps
as many as one of minutes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pipeline.errors import WorldError
from pipeline.ledger import ObjectStore, read_document

TIMELINE_KEY: Final = "timeline.json"
MOST_POINTS: Final = 400
# Calls of the driver that are remembered: a run that is resumed every hour for a month.
MOST_CALLS: Final = 1000
_FIRST_INTERVAL_S: Final = 0.5


@dataclass
class Timeline:
    """Points of this call of the driver, and those of the calls before."""

    earlier: list[dict[str, Any]] = field(default_factory=list)
    """Calls before, as stored."""
    began_s: float = field(default_factory=time.time)
    """When this call began, seconds since 1970."""
    points: list[dict[str, Any]] = field(default_factory=list)
    """Ascending in time."""
    _interval_s: float = _FIRST_INTERVAL_S

    @classmethod
    def of(cls, store: ObjectStore) -> Self:
        """Begin a call; what was stored before is kept, where it can be read."""
        try:
            document = read_document(store, TIMELINE_KEY) or {}
        except WorldError:
            document = {}
        return cls(list(document.get("calls", []))[-MOST_CALLS + 1 :])

    def note(self, wall_s: float, done: Mapping[str, int], num_workers: int, busy_fraction: float | None) -> None:
        """Take note of where the run stands; cheap, may be called after every task."""
        if self.points and wall_s - self.points[-1]["s"] < self._interval_s:
            return
        point = {"s": round(wall_s, 2), "done": dict(done), "workers": num_workers, "busy": busy_fraction}
        self.points.append(point)
        if len(self.points) >= MOST_POINTS:
            self.points = self.points[::2]
            self._interval_s *= 2

    def document(self) -> dict[str, Any]:
        """Give all calls, for the store."""
        return {"calls": [*self.earlier, {"began_s": round(self.began_s, 1), "points": self.points}]}
