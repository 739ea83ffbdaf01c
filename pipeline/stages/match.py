"""match: one face between two blocks -> the pairs of labels that share voxels in the slab both computed."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from pipeline.errors import CorruptData
from pipeline.labels.overlaps import OverlapTable, count_overlaps, empty_overlaps
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import column, edges_key, face_key
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Outcome, Stopwatch, TaskReport
from pipeline.storage import pack_table, unpack_table

NAME = "match"
NUM_AXES = 3


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks: 3 * block + axis; the last block of an axis has nothing to do."""
    return range(NUM_AXES * len(plan.label_grid))


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: 3 * block + axis.
        plan: the run's plan.
        context: where things are.

    Raises:
        WorldError: a store failed, or a face is damaged or missing.
    """
    block, axis = divmod(index, NUM_AXES)
    neighbor = plan.label_grid.upper_neighbor(block, axis)
    numbers = [number for number, rule in enumerate(plan.classes) if rule.kind == "instances"]
    watch = Stopwatch()
    if neighbor is None or not numbers:
        return TaskReport(NAME, index, "empty", seconds=watch.seconds)
    with watch.phase("read"):
        lower = _read_face(context, face_key(block, axis, 1))
        upper = _read_face(context, face_key(neighbor, axis, 0))
    columns: dict[str, NDArray[Any]] = {}
    num_pairs = 0
    with watch.phase("compute"):
        for number in numbers:
            name = column(number, "labels")
            table = _count(lower[name], upper[name])
            columns |= {column(number, key): values for key, values in table._asdict().items()}
            num_pairs += len(table.lower)
    with watch.phase("write"):
        context.objects.put(edges_key(block, axis), pack_table(columns))
    outcome: Outcome = "written" if num_pairs else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters={"pairs": num_pairs})


def _read_face(context: TaskContext, key: str) -> dict[str, NDArray[Any]]:
    """Read the slab of one side of a block."""
    return unpack_table(context.objects.get(key), key)


def _count(lower_zyx: NDArray[Any], upper_zyx: NDArray[Any]) -> OverlapTable:
    """Count the overlaps of two slabs; a slab without voxels is one of background.

    Raises:
        CorruptData: the slabs differ in shape.
    """
    if lower_zyx.size == 0 or upper_zyx.size == 0:
        return empty_overlaps()
    if lower_zyx.shape != upper_zyx.shape:
        raise CorruptData(
            f"matching a face: one neighbor stored a slab of {lower_zyx.shape} voxels, the other of {upper_zyx.shape}; "
            "they come from runs with different plans: --restart"
        )
    return count_overlaps(lower_zyx, upper_zyx)
