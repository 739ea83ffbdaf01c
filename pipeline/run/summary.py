"""What one call of the driver cost: `summary.json` in the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.ledger import ObjectStore, encode_document
from pipeline.run.loop import Tally
from pipeline.run.progress import SUMMARY_KEY, busy_fractions
from pipeline.run.stream import StageCounts
from pipeline.run.work import peak_memory_bytes


@dataclass(frozen=True)
class RunSummary:
    """Figures of one call of the driver; start-up of workers is not in them."""

    status: str
    """`complete`, `failed` or `interrupted`."""
    wall_seconds: float
    """From the first task handed out to the last one recorded."""
    num_workers: int
    """Workers that finished a task."""
    num_tasks: int
    """Tasks done in this call."""
    num_retried: int
    """Attempts that failed and were tried again."""
    model_seconds: float
    """Time inside the model, summed over workers."""
    wall_times_workers_per_model_second: float | None
    """Wall x workers / time inside the model; 1 is a model that never waits."""
    seconds_by_stage: dict[str, float]
    """Wall time on workers per stage."""
    seconds_by_phase: dict[str, float]
    """Wall time on workers per phase of a task."""
    busy_fraction_by_worker: dict[str, float]
    """Time inside the model / wall time until the last block was through the model, per worker."""
    peak_bytes_by_worker: dict[str, int]
    """Largest resident memory per worker."""
    peak_bytes_driver: int
    """Largest resident memory of the driver and what runs in its process."""
    counters: dict[str, int]
    """Counters of all tasks, as `stage.counter`."""
    core_voxels: int
    """Voxels that the stage with the model has delivered."""
    model_voxels: int
    """Voxels that passed through the model for them."""
    core_voxels_per_second: float | None
    """Throughput; None where no stage counted voxels."""
    stages: dict[str, dict[str, int]]
    """Tasks per stage: total, done, failed, blocked."""


def summarize(status: str, counts: Mapping[str, StageCounts], tally: Tally) -> RunSummary:
    """Gather the figures of one call of the driver."""
    wall, model = tally.wall_seconds, tally.model_seconds
    workers = len(tally.model_seconds_by_worker)
    # The stage that calls the model counts the voxels it delivers and those that pass through the model.
    model_stage = next((name.partition(".")[0] for name in tally.counters if name.endswith(".model_voxels")), "")
    core, model_voxels = (tally.counters.get(f"{model_stage}.{name}", 0) for name in ("voxels", "model_voxels"))
    return RunSummary(
        status=status,
        wall_seconds=round(wall, 3),
        num_workers=workers,
        num_tasks=tally.num_finished,
        num_retried=tally.num_retried,
        model_seconds=round(model, 3),
        wall_times_workers_per_model_second=round(wall * workers / model, 4) if model > 0 else None,
        seconds_by_stage={name: round(value, 3) for name, value in tally.seconds_by_stage.items()},
        seconds_by_phase={name: round(value, 3) for name, value in tally.seconds_by_phase.items()},
        busy_fraction_by_worker=busy_fractions(tally),
        peak_bytes_by_worker=dict(tally.peak_bytes_by_worker),
        peak_bytes_driver=peak_memory_bytes(),
        counters=dict(tally.counters),
        core_voxels=core,
        model_voxels=model_voxels,
        core_voxels_per_second=round(core / wall, 1) if core and wall > 0 else None,
        stages={
            name: {"total": count.total, "done": count.done, "failed": count.failed, "blocked": count.blocked}
            for name, count in counts.items()
        },
    )


def write_summary(store: ObjectStore, summary: RunSummary) -> None:
    """Put the summary beside the journal."""
    document: dict[str, Any] = asdict(summary)
    store.put(SUMMARY_KEY, encode_document(document))
