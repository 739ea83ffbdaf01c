"""pyramid: one cell of a coarser level, made from the level below by the most frequent id.

Tasks are numbered level by level: all cells of mip 1, then all of mip 2, ...
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import OurError
from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.downsample import downsample_mode
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import output_array_name
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Stopwatch, TaskReport, WrittenUnit, outcome_of, written_units
from pipeline.storage import LabelVolumeWriter

NAME = "pyramid"


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(sum(len(grid) for grid in plan.pyramid_grids))


def locate(index: int, plan: RunPlan) -> tuple[int, int]:
    """Turn a task's index into the mip it writes (from 1) and the cell of that mip's grid.

    Raises:
        OurError: there is no such task.
    """
    rest = index
    for below, grid in enumerate(plan.pyramid_grids):
        if 0 <= rest < len(grid):
            return below + 1, rest
        rest -= len(grid)
    raise OurError(f"pyramid task {index} does not exist; there are {len(tasks(plan))}")


def first_task(mip: int, plan: RunPlan) -> int:
    """Give the index of the first task of a mip (from 1)."""
    return sum(len(grid) for grid in plan.pyramid_grids[: mip - 1])


def cell_below(mip: int, cell: Box, plan: RunPlan) -> Box:
    """Give the voxels of mip - 1 that a box of `mip` is made from."""
    factor = plan.mip_factors[mip - 1]
    below = plan.output_domain if mip == 1 else plan.pyramid_grids[mip - 2].domain
    return Box(_times(cell.start, factor), _times(cell.stop, factor)).intersection(below)


def _times(voxel: Vector, factor: Vector) -> Vector:
    return (voxel[0] * factor[0], voxel[1] * factor[1], voxel[2] * factor[2])


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the run's plan.
        context: where things are.

    Raises:
        WorldError: a store failed.
    """
    mip, number = locate(index, plan)
    cell = plan.pyramid_grids[mip - 1].box(number)
    watch = Stopwatch()
    units: list[WrittenUnit] = []
    for class_index in range(len(plan.classes)):
        outputs = [i for i, output in enumerate(plan.outputs) if output.class_index == class_index]
        # All outputs of a class hold the same ids: read and count once.
        ids_zyx = _coarser(mip, cell, plan, context.writers[outputs[0]], watch)
        for output_index in outputs:
            with watch.phase("write"):
                records = context.writers[output_index].write(mip, cell, ids_zyx)
            units += written_units(output_array_name(output_index, mip), records)
    return TaskReport(
        NAME,
        index,
        outcome_of(units),
        units=tuple(units),
        seconds=watch.seconds,
        counters={"voxels": cell.num_voxels},
    )


def _coarser(mip: int, cell: Box, plan: RunPlan, source: LabelVolumeWriter, watch: Stopwatch) -> SegmentArray:
    """Make a cell of a mip chunk by chunk, so that the level below is never in memory as a whole."""
    ids_zyx = np.zeros(cell.shape, np.uint64)
    factor = plan.mip_factors[mip - 1]
    for part in _parts(cell, source.spec.chunk_zyx):
        with watch.phase("read"):
            below_zyx = source.read(mip - 1, cell_below(mip, part, plan))
        with watch.phase("compute"):
            if below_zyx.any():
                ids_zyx[part.relative_to(cell.start).slices] = downsample_mode(below_zyx, factor)
    return ids_zyx


def _parts(cell: Box, chunk: Vector) -> list[Box]:
    grid = BlockGrid(cell, chunk)
    return [grid.box(index) for index in range(len(grid))]
