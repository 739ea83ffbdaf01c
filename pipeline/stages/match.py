"""match: one face between two blocks -> the pairs of labels that share voxels in the slab both computed.

Beside the pairs stands what one block labelled and the other saw as background: the seam report needs it, and the slabs
are not read again. In its halo a block also has objects that never reach its core. They belong to the neighbor: they
are stored under one label, `foreign`, and count neither as objects nor as background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptData
from pipeline.labels.overlaps import (
    OneSided,
    OverlapTable,
    alone_without,
    count_one_sided,
    count_overlaps,
    empty_one_sided,
    empty_overlaps,
    without,
)
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
            name, foreign = column(number, "labels"), column(number, "foreign")
            pairs, alone = _count(lower[name], upper[name])
            strangers = int(lower[foreign][0]), int(upper[foreign][0])
            table, one_sided = without(pairs, *strangers), alone_without(alone, *strangers)
            values = {**table._asdict(), **one_sided._asdict()}
            columns |= {column(number, key): value for key, value in values.items()}
            num_pairs += len(table.lower)
    with watch.phase("write"):
        context.objects.put(edges_key(block, axis), pack_table(columns))
    outcome: Outcome = "written" if num_pairs else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters={"pairs": num_pairs})


def _read_face(context: TaskContext, key: str) -> dict[str, NDArray[Any]]:
    """Read the slab of one side of a block."""
    return unpack_table(context.objects.get(key), key)


def _count(lower_zyx: NDArray[Any], upper_zyx: NDArray[Any]) -> tuple[OverlapTable, OneSided]:
    """Count the overlaps of two slabs; a slab without voxels is one of background.

    Raises:
        CorruptData: the slabs differ in shape.
    """
    if lower_zyx.size == 0 and upper_zyx.size == 0:
        return empty_overlaps(), empty_one_sided()
    if lower_zyx.size == 0:
        lower_zyx = np.zeros_like(upper_zyx)
    if upper_zyx.size == 0:
        upper_zyx = np.zeros_like(lower_zyx)
    if lower_zyx.shape != upper_zyx.shape:
        raise CorruptData(
            f"matching a face: one neighbor stored a slab of {lower_zyx.shape} voxels, the other of {upper_zyx.shape}; "
            "they come from runs with different plans: --restart"
        )
    return count_overlaps(lower_zyx, upper_zyx), count_one_sided(lower_zyx, upper_zyx)
