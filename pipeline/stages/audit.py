"""audit: the faces of one group of blocks -> rows of `edges.parquet` and `seams.parquet`, once the ids are dealt.

1. every pair of labels that was judged: where it is, how large its overlap, what became of it and why, its ids
2. every face: the share of the slab in which the two blocks disagree after merging

Nothing later needs it, so it runs beside relabel and pyramid.
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import CorruptData
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.overlaps import OneSided, OverlapTable
from pipeline.labels.seams import count_mismatch
from pipeline.stages.context import TaskContext
from pipeline.stages.faces import Columns, Face, judge, overlaps_of, read_faces, upper_faces
from pipeline.stages.layout import EDGES_KEY, SEAMS_KEY, column, face_box, lut_key, part_key, slab_reach
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Stopwatch, TaskReport
from pipeline.stages.run_tables import EdgeTableWriter, FaceRows, SeamTableWriter
from pipeline.storage import unpack_table

NAME = "audit"


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks: the leaves of `plan.group_tree`."""
    return range(len(plan.group_tree.level(0)))


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: of a leaf of `plan.group_tree`.
        plan: the run's plan.
        context: where things are.

    Raises:
        WorldError: a store failed, or a table is damaged or missing.
    """
    watch = Stopwatch()
    maps = _Maps(context)
    counters = {"faces": 0, "pairs": 0, "labelled_voxels": 0, "mismatch_voxels": 0}
    with watch.phase("audit"), EdgeTableWriter(plan) as edges, SeamTableWriter(plan) as seams:
        for face, stored in read_faces(context, upper_faces(plan, index)):
            for number, rule in enumerate(plan.classes):
                if rule.kind != "instances":
                    continue
                rows, one_sided = _rows(plan, context, face, number, stored, maps)
                lower_ids, upper_ids = maps.of(face, number, rows.table, one_sided)
                mismatch = count_mismatch(rows.table, one_sided, lower_ids, upper_ids)
                edges.add(rows)
                seams.add(rows, mismatch)
                counters["faces"] += 1
                counters["pairs"] += len(rows.scored.accepted)
                counters["labelled_voxels"] += mismatch.num_labelled
                counters["mismatch_voxels"] += mismatch.num_mismatched
    with watch.phase("write"):
        context.objects.put(part_key(EDGES_KEY, plan, index), edges.finish())
        context.objects.put(part_key(SEAMS_KEY, plan, index), seams.finish())
    return TaskReport(
        NAME, index, "written" if counters["pairs"] else "empty", seconds=watch.seconds, counters=counters
    )


class _Maps:
    """The maps of blocks, each read once, and only where a face has a label."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._by_block: dict[int, Columns] = {}

    def of(
        self, face: Face, number: int, table: OverlapTable, one_sided: OneSided
    ) -> tuple[SegmentArray, SegmentArray]:
        """Give both blocks' ids by label.

        Raises:
            CorruptData: the face names a label that a map does not have.
        """
        lower = self._one(face.block, number, (table.lower, one_sided.lower_only))
        return lower, self._one(face.neighbor, number, (table.upper, one_sided.upper_only))

    def _one(self, block: int, number: int, labels: tuple[SegmentArray, SegmentArray]) -> SegmentArray:
        largest = max(int(part.max(initial=0)) for part in labels)
        if largest == 0:
            return np.zeros(1, np.uint64)
        if block not in self._by_block:
            key = lut_key(block)
            self._by_block[block] = unpack_table(self._context.objects.get(key), key)
        ids = self._by_block[block][column(number, "ids")]
        if largest >= len(ids):
            raise CorruptData(
                f"auditing: a face names label {largest} of block {block}, whose map has {len(ids) - 1}; tables of two "
                "runs are mixed: --restart"
            )
        return ids


def _rows(
    plan: RunPlan, context: TaskContext, face: Face, number: int, stored: Columns, maps: _Maps
) -> tuple[FaceRows, OneSided]:
    """Judge one class at one face again, and look its ids up."""
    table = overlaps_of(number, stored)
    one_sided = OneSided(*(stored[column(number, name)] for name in OneSided._fields))
    lower_ids, upper_ids = maps.of(face, number, table, one_sided)
    reach = slab_reach(plan, plan.labelled_classes[number], face.axis)
    rows = FaceRows(
        plan.classes[number].name,
        face,
        face_box(plan.label_grid, face.block, face.axis, 1, reach),
        table,
        judge(plan, context, face, number, table),
        lower_ids[table.lower],
        upper_ids[table.upper],
    )
    return rows, one_sided
