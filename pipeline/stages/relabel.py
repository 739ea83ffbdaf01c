"""relabel: one cell of whole write units -> ids of the volume, in every output.

1. for every block that the cell touches: its local labels and its map
2. look the labels up
3. write the cell to every output of the class
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Box
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.luts import apply_lut
from pipeline.stages.context import TaskContext
from pipeline.stages.intermediates import read_intermediate
from pipeline.stages.label import NAME as LABEL
from pipeline.stages.layout import column, lut_key, output_array_name
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Stopwatch, TaskReport, WrittenUnit, outcome_of, written_units
from pipeline.storage import unpack_table

NAME = "relabel"


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks: cells of `plan.relabel_grid`."""
    return range(len(plan.relabel_grid))


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: of a cell of `plan.relabel_grid`.
        plan: the run's plan.
        context: where things are.

    Raises:
        OurError: a label has no entry in its block's map.
        WorldError: a store failed.
    """
    cell = plan.relabel_grid.box(index)
    watch = Stopwatch()
    units: list[WrittenUnit] = []
    luts: dict[int, dict[str, SegmentArray]] = {}
    with watch.phase("read"):
        for block in plan.label_grid.touched_by(cell):
            key = lut_key(block)
            luts[block] = unpack_table(context.objects.get(key), key)
    for number in range(len(plan.classes)):
        ids_zyx = _look_up(number, cell, luts, plan, context, watch)
        for output_index, output in enumerate(plan.outputs):
            if output.class_index != number:
                continue
            with watch.phase("write"):
                records = context.writers[output_index].write(0, cell, ids_zyx)
            units += written_units(output_array_name(output_index, 0), records)
    return TaskReport(
        NAME,
        index,
        outcome_of(units),
        units=tuple(units),
        seconds=watch.seconds,
        counters={"voxels": cell.num_voxels},
    )


def _look_up(
    number: int,
    cell: Box,
    luts: dict[int, dict[str, SegmentArray]],
    plan: RunPlan,
    context: TaskContext,
    watch: Stopwatch,
) -> SegmentArray:
    """Give the ids of one class in a cell."""
    ids_zyx = np.zeros(cell.shape, np.uint64)
    for block, tables in luts.items():
        lut = tables[column(number, "ids")]
        if not lut.any():
            continue
        part = plan.label_grid.box(block).intersection(cell)
        with watch.phase("read"):
            labels_zyx = read_intermediate(context.labels[number], part, LABEL, plan.label_grid)
        with watch.phase("compute"):
            found_zyx = apply_lut(labels_zyx, lut)
            if part == cell:
                return found_zyx
            ids_zyx[part.relative_to(cell.start).slices] = found_zyx
    return ids_zyx
