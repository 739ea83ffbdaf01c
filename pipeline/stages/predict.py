"""predict: one block of the working lattice -> probabilities of its core.

1. skip blocks outside the mask, and those of one grey value
2. read the image with the model's context, bring it onto the working lattice
3. ask the model
4. write the core's probabilities, and what is kept of the prediction
"""

from __future__ import annotations

from pipeline.stages.context import TaskContext
from pipeline.stages.grey import is_masked_out, predict_box
from pipeline.stages.layout import blank_key, require_predict_grid
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Stopwatch, TaskReport, written_units

NAME = "predict"

_BLANK_NOTE = b"one grey value\n"


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks; none where the segmenter is fused into the label stage."""
    return range(0 if plan.predict_grid is None else len(plan.predict_grid))


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: of a block of `plan.predict_grid`.
        plan: the run's plan.
        context: where things are.

    Raises:
        DeviceOutOfMemory: the accelerator's memory is full.
        DeviceLost: the accelerator went away.
        WorldError: a store failed.
    """
    core = require_predict_grid(plan).box(index)
    watch = Stopwatch()
    if is_masked_out(core, plan.working_voxel_size_nm, plan, context):
        return TaskReport(NAME, index, "empty", seconds=watch.seconds, counters={"blocks_outside_mask": 1})
    prediction = predict_box(core, plan, context, watch)
    if prediction is None:
        context.objects.put(blank_key(index), _BLANK_NOTE)
        return TaskReport(NAME, index, "empty", seconds=watch.seconds, counters={"blocks_of_one_grey": 1})
    with watch.phase("write"):
        records = context.probabilities.write(core, prediction.probability_czyx[: plan.num_channels])
        for kept, writer in zip(plan.predictions, context.predictions, strict=True):
            writer.write(core, prediction.probability_czyx[kept.channel])
    model_voxels = context.demand.model_voxels(core, plan.working_bounds, plan.working_domain)
    return TaskReport(
        NAME,
        index,
        "written",
        scratch_units=written_units("probabilities", records),
        seconds=watch.seconds,
        counters={"voxels": core.num_voxels, "model_voxels": model_voxels},
        remark=prediction.remark,
    )
