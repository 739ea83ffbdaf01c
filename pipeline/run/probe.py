"""Measures what a run would cost on a few of its real blocks: `sam4em plan --probe N`.

1. take N blocks, spread evenly over the volume
2. predict, label, relabel and down-sample each for real, in a folder that is thrown away
3. multiply by the number of tasks; the spread of the blocks gives a range

Matching and resolving need neighbors and are not measured; docs/scaling.md says what they take. A worker has two
threads, so that a GPU waits only where reading and writing take longer than the model: its time per block is the longer
of the two.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats

from pipeline.config.schema import Sam4emSegmenter
from pipeline.geometry import Box, source_box
from pipeline.run.completion import TaskResult
from pipeline.run.estimate import count_files
from pipeline.run.prepare import PreparedRun, storage_options
from pipeline.run.run_stages import translate
from pipeline.segmenter import count_gpus, load_segmenter
from pipeline.stages import label, layout, predict, pyramid, relabel
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan
from pipeline.storage import pack_table

# The mean lies in the range given with this probability, as far as the probes are a fair sample.
CONFIDENCE: Final = 0.95
_HOUR_S: Final = 3600.0
_TERA: Final = 1e12
_NOT_MEASURED: Final = b"not measured\n"


@dataclass(frozen=True)
class Figure:
    """A measured mean and the range in which it lies."""

    mean: float
    """Mean of the probes."""
    low: float | None
    """Lower end of the range; None: one probe has no spread."""
    high: float | None
    """Upper end."""

    def times(self, factor: float) -> Figure:
        """Give the figure of so many."""
        ends = [None if end is None else end * factor for end in (self.low, self.high)]
        return Figure(self.mean * factor, *ends)

    def plus(self, other: Figure) -> Figure:
        """Add a figure; ranges add up, as if both erred to the same side."""
        ends = [None if a is None or b is None else a + b for a, b in ((self.low, other.low), (self.high, other.high))]
        return Figure(self.mean + other.mean, *ends)

    def shown(self, digits: int = 3) -> dict[str, float | None]:
        """Give plain values, rounded to significant digits."""
        values = {"mean": self.mean, "low": self.low, "high": self.high}
        return {name: None if value is None else float(f"{value:.{digits}g}") for name, value in values.items()}


NOTHING: Final = Figure(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Probe:
    """What one block cost."""

    seconds: dict[str, float]
    """Wall time per stage: predict, label, relabel, pyramid."""
    model_seconds: float
    """Of those, inside the model."""
    bytes_on_disk: dict[str, int]
    """Stored bytes, compressed: `intermediates` and `outputs`."""


def mean_of(values: Sequence[float]) -> Figure:
    """Give the mean of a sample and its range, by Student's t; nothing measured lies below zero."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Figure(mean, None, None)
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Figure(mean, max(0.0, mean - reach), mean + reach)


def probe_run(prepared: PreparedRun, num_probes: int) -> dict[str, Any]:
    """Carry out a few blocks and tell what the whole run would cost.

    Args:
        prepared: the run; its image is read, its outputs are not touched.
        num_probes: blocks to carry out; more than there are count as all.

    Returns:
        Named figures; see `docs/scaling.md`.

    Raises:
        WorldError: the image cannot be read.
        WorkError: the model fails.
    """
    with _thrown_away(prepared) as (plan, context):
        blocks = spread_blocks(len(plan.label_grid), num_probes)
        probes = [_probe_block(block, plan, context) for block in blocks]
    return _project(prepared.plan, probes)


def spread_blocks(num_blocks: int, num_probes: int) -> list[int]:
    """Choose blocks spread evenly, in the middle of equal stretches; one probe takes the middle."""
    count = min(num_blocks, num_probes)
    return [(2 * number + 1) * num_blocks // (2 * count) for number in range(count)]


@contextmanager
def _thrown_away(prepared: PreparedRun) -> Iterator[tuple[RunPlan, TaskContext]]:
    """Open a run whose every place lies in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="sam4em-plan-") as folder:
        outputs = tuple(
            replace(output, spec=replace(output.spec, url=f"{folder}/outputs/{number}{Path(output.url).suffix}"))
            for number, output in enumerate(prepared.plan.outputs)
        )
        plan = replace(prepared.plan, run_url=f"{folder}/run", outputs=outputs)
        context = TaskContext(
            plan,
            options=storage_options(plan.config.storage),
            demand=prepared.demand,
            segmenter=load_segmenter(plan.config.segmenter, plan.source_voxel_size_nm),
        )
        for array in (*context.labels, *([context.probabilities] if plan.predict_grid is not None else [])):
            array.create()
        for writer in context.writers:
            writer.create()
        yield plan, context


def _probe_block(block: int, plan: RunPlan, context: TaskContext) -> Probe:
    before = _stored_bytes(plan)
    results: dict[str, TaskResult] = {}
    if plan.predict_grid is not None:
        model_block = _predict_block_of(plan, block)
        results["predict"] = translate(predict.run(model_block, plan, context))
        _note_others_as_blank(plan, context, block, model_block)
    results["label"] = translate(label.run(block, plan, context))
    cell = _hand_out_ids(plan, context, block, results["label"].counters["labels"])
    results["relabel"] = translate(relabel.run(cell, plan, context))
    seconds = {name: sum(result.seconds.values()) for name, result in results.items()}
    if plan.pyramid_grids:
        seconds["pyramid"] = _probe_pyramid(cell, plan, context)
    after = _stored_bytes(plan)
    return Probe(
        seconds=seconds,
        model_seconds=sum(result.seconds.get("model_s", 0.0) for result in results.values()),
        bytes_on_disk={name: after[name] - before[name] for name in after},
    )


def _predict_block_of(plan: RunPlan, block: int) -> int:
    """Give the model block that holds the middle of a label block."""
    core = plan.label_grid.box(block)
    z, y, x = ((start + stop) // 2 for start, stop in zip(core.start, core.stop, strict=True))
    voxel = Box((z, y, x), (z + 1, y + 1, x + 1))
    grid = layout.require_predict_grid(plan)
    return next(iter(grid.touched_by(source_box(voxel, plan.working_to_output, plan.working_domain))))


def _note_others_as_blank(plan: RunPlan, context: TaskContext, block: int, model_block: int) -> None:
    """Say of the model blocks that a label block reads beside its own that they hold nothing."""
    region = plan.label_grid.box(block).grown(plan.label_halo_zyx).intersection(plan.output_domain)
    grid = layout.require_predict_grid(plan)
    for other in grid.touched_by(source_box(region, plan.working_to_output, plan.working_domain)):
        if other != model_block:
            context.objects.put(layout.blank_key(other), _NOT_MEASURED)


def _hand_out_ids(plan: RunPlan, context: TaskContext, block: int, num_labels: int) -> int:
    """Give every label of a block an id, and those of its neighbors none; give the cell that writes the block."""
    (cell, *_) = plan.relabel_grid.touched_by(plan.label_grid.box(block))
    for other in plan.label_grid.touched_by(plan.relabel_grid.box(cell)):
        ids = np.arange(num_labels + 1, dtype=np.uint64) if other == block else np.zeros(1, np.uint64)
        columns = {layout.column(number, "ids"): ids for number in range(len(plan.classes))}
        context.objects.put(layout.lut_key(other), pack_table(columns))
    return cell


def _probe_pyramid(cell: int, plan: RunPlan, context: TaskContext) -> float:
    """Make the cell of level 1 above a relabel cell; gives its seconds as if all cells below it had been written."""
    written = plan.relabel_grid.box(cell)
    start = [at // step for at, step in zip(written.start, plan.mip_factors[0], strict=True)]
    voxel = Box((start[0], start[1], start[2]), (start[0] + 1, start[1] + 1, start[2] + 1))
    (above,) = plan.pyramid_grids[0].touched_by(voxel)
    result = translate(pyramid.run(above, plan, context))
    below = pyramid.cell_below(1, plan.pyramid_grids[0].box(above), plan)
    share = below.intersection(written).num_voxels / below.num_voxels
    return sum(result.seconds.values()) / share


def _stored_bytes(plan: RunPlan) -> dict[str, int]:
    folder = Path(plan.run_url).parent
    parts = {"intermediates": folder / "run", "outputs": folder / "outputs"}
    return {
        name: sum(file.stat().st_size for file in part.rglob("*") if file.is_file()) for name, part in parts.items()
    }


def _project(plan: RunPlan, probes: Sequence[Probe]) -> dict[str, Any]:
    """Multiply by the number of tasks."""
    num_label = len(plan.label_grid)
    num_tasks = {
        "predict": 0 if plan.predict_grid is None else len(plan.predict_grid),
        "label": num_label,
        "relabel": len(plan.relabel_grid),
        "pyramid": sum(len(grid) for grid in plan.pyramid_grids),
    }
    seconds = {
        stage: mean_of([probe.seconds.get(stage, 0.0) for probe in probes]) for stage in num_tasks if num_tasks[stage]
    }
    model_stage = "label" if plan.predict_grid is None else "predict"
    on_gpu = runs_on_gpu(plan)
    model = mean_of([_time_of_device(probe, model_stage) for probe in probes]).times(num_tasks[model_stage] / _HOUR_S)
    others = NOTHING
    for stage, figure in seconds.items():
        if not (on_gpu and stage == model_stage):
            others = others.plus(figure.times(num_tasks[stage] / _HOUR_S))
    written = mean_of([probe.bytes_on_disk["outputs"] for probe in probes]).times(num_label)
    kept = mean_of([probe.bytes_on_disk["intermediates"] for probe in probes]).times(num_label)
    report: dict[str, Any] = {
        "probes": len(probes),
        "seconds_per_task": {stage: figure.shown() for stage, figure in seconds.items()},
        "gpu_hours": model.shown() if on_gpu else None,
        "cpu_worker_hours": others.shown(),
        "stored_bytes": {"outputs": written.shown(), "intermediates": kept.shown()},
    }
    workers = plan.config.cluster.num_model_workers
    if workers is not None:
        report["hours_on_these_workers"] = (model if on_gpu else others).times(1 / workers).shown()
    prices = _price(plan, model if on_gpu else NOTHING, others, written)
    return report | ({"cost": prices} if prices else {})


def _time_of_device(probe: Probe, model_stage: str) -> float:
    """Give the seconds that a block keeps a device: two threads take turns, so the longer of model and all else."""
    return max(probe.model_seconds, probe.seconds[model_stage] - probe.model_seconds)


def runs_on_gpu(plan: RunPlan) -> bool:
    """Whether the model runs on a GPU here: the config allows one and one is there."""
    segmenter = plan.config.segmenter
    return isinstance(segmenter, Sam4emSegmenter) and segmenter.device != "cpu" and count_gpus() > 0


def _price(plan: RunPlan, gpu_hours: Figure, cpu_hours: Figure, stored_bytes: Figure) -> dict[str, Any]:
    """Give the cost of what has a price in the config, and the sum where more than one has."""
    prices = plan.config.prices
    num_files = sum(count_files(plan).values())
    amounts = {
        "gpu_hour": gpu_hours,
        "cpu_hour": cpu_hours,
        "terabyte_month": stored_bytes.times(1 / _TERA),
        "million_writes": Figure(num_files, num_files, num_files).times(1e-6),
    }
    costs = {
        name: amount.times(getattr(prices, name))
        for name, amount in amounts.items()
        if getattr(prices, name) is not None
    }
    total = NOTHING
    for cost in costs.values():
        total = total.plus(cost)
    shown = {name: cost.shown() for name, cost in costs.items()}
    return shown | ({"total": total.shown()} if len(costs) > 1 else {})
