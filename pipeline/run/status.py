"""`sam4em status`: where a run stands, from what lies in its directory; needs no driver."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import VolumeNotFound
from pipeline.ledger import (
    Journal,
    ObjectStore,
    RunState,
    StageJournal,
    current_holder,
    is_gone,
    read_document,
    read_manifest,
    read_state,
)
from pipeline.ledger.lease import STALE_S
from pipeline.run.progress import PROGRESS_KEY, SUMMARY_KEY


@dataclass(frozen=True)
class StageStatus:
    """Where one stage stands."""

    name: str
    """The stage."""
    total: int
    """Tasks in all."""
    done: int
    """Tasks done."""
    empty: int
    """Those of them that left nothing: outside the mask, of one grey value, without an object."""
    failed: dict[int, str]
    """Error by task, for those that failed and were not done since."""
    running: int
    """Tasks handed out by the driver that is at work; up to a few seconds old."""
    tasks_per_second: float | None
    """Since this driver began; None: not known."""

    @property
    def to_do(self) -> int:
        """Tasks that nobody works on; those that wait for a failed one among them."""
        return self.total - self.done - len(self.failed) - self.running

    @property
    def seconds_left(self) -> float | None:
        """Time left for this stage at its rate so far; None: not known."""
        left = self.total - self.done - len(self.failed)
        return left / self.tasks_per_second if self.tasks_per_second else None


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands."""

    stages: tuple[StageStatus, ...]
    """Every stage, in order."""
    state: RunState
    """Complete, verified, cleaned."""
    holder: str | None
    """The driver at work; None: nobody is."""
    dead_holder: str | None
    """A driver that went away without letting go."""
    busy_fraction_by_worker: dict[str, float]
    """Time inside the model / wall time until the last block was through the model, per worker of the driver at work;
    where none is, of the last one that ended by itself."""

    @property
    def seconds_left(self) -> float | None:
        """Time left of the slowest stage whose rate is known."""
        known = [stage.seconds_left for stage in self.stages if stage.seconds_left is not None]
        return max(known, default=None)


def read_status(store: ObjectStore) -> RunStatus:
    """Gather where a run stands.

    Raises:
        VolumeNotFound: there is no run here.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise VolumeNotFound("reading the status: there is no run here; give the output of a run, or its config")
    journal = Journal(store, manifest.num_tasks)
    journal.replay()
    record = current_holder(store)
    is_dead = record is not None and (is_gone(record) or time.time() - record.beat_s > STALE_S)
    is_at_work = record is not None and not is_dead
    progress = (read_document(store, PROGRESS_KEY) or {}) if is_at_work else {}
    shares = progress if is_at_work else read_document(store, SUMMARY_KEY) or {}
    return RunStatus(
        stages=tuple(_stage_status(stage, progress) for stage in journal.stages.values()),
        state=read_state(store),
        holder=str(record) if is_at_work else None,
        dead_holder=str(record) if is_dead else None,
        busy_fraction_by_worker=shares.get("busy_fraction_by_worker", {}),
    )


def read_status_with_shapes(store: ObjectStore, shape_stores: Iterable[ObjectStore]) -> RunStatus:
    """Gather where a run stands, with the stages of its meshes and skeletons and the drivers that make them.

    Args:
        store: directory of the run.
        shape_stores: directories of its meshes and skeletons, begun or not.

    Raises:
        VolumeNotFound: there is no run here.
    """
    status = read_status(store)
    for shape_store in shape_stores:
        if read_manifest(shape_store) is not None:
            shapes = read_status(shape_store)
            status = replace(
                status,
                stages=status.stages + shapes.stages,
                holder=status.holder or shapes.holder,
                dead_holder=status.dead_holder or shapes.dead_holder,
            )
    return status


def _stage_status(stage: StageJournal, progress: dict[str, Any]) -> StageStatus:
    finished = progress.get("num_finished_by_stage", {}).get(stage.stage, 0)
    wall = progress.get("wall_seconds", 0.0)
    left = stage.done.num_tasks - len(stage.done) - len(stage.failed)
    return StageStatus(
        name=stage.stage,
        total=stage.done.num_tasks,
        done=len(stage.done),
        empty=len(stage.empty),
        failed=dict(sorted(stage.failed.items())),
        running=min(left, progress.get("running", {}).get(stage.stage, 0)),
        tasks_per_second=finished / wall if finished and wall > 0 else None,
    )
