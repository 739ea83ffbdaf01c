"""resolve: which labels of which blocks are one object, and which id it gets. One task.

1. count the labels of every block: a label's node is its block's offset + label - 1
2. judge the edges of every face, write the judgement to `edges.parquet`
3. objects = connected components of nodes under accepted edges
4. add up every object's measures; drop objects that are too small or hold no seed; deal the ids, class by class
5. per block, its map from label to id; `segments.parquet`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptData
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.merges import MergeKind, MergeRule, ScoredEdges, accept_edges
from pipeline.labels.overlaps import OverlapTable
from pipeline.labels.resolve import connect_nodes, count_offsets, keep_objects, make_lut, number_objects
from pipeline.labels.statistics import LabelTable, empty_table, merge_rows, take_rows
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import (
    EDGES_KEY,
    SEGMENTS_KEY,
    column,
    edges_key,
    lut_key,
    statistics_key,
)
from pipeline.stages.match import NUM_AXES
from pipeline.stages.plan import ClassPlan, RunPlan
from pipeline.stages.properties import write_properties
from pipeline.stages.report import Outcome, Stopwatch, TaskReport
from pipeline.stages.run_tables import EdgeTableWriter, SegmentTableWriter
from pipeline.storage import pack_table, unpack_table

NAME = "resolve"

Nodes = NDArray[np.int64]


@dataclass(frozen=True)
class ClassSolution:
    """The objects of one class."""

    offsets: Nodes
    """First node of every block, and the number of nodes, shape (blocks + 1,)."""
    objects: NDArray[np.int32]
    """Object of every node."""
    num_objects: int
    """How many objects there are."""

    def of_block(self, block: int) -> NDArray[np.int32]:
        """Give the object of each of a block's labels, in label order."""
        return self.objects[self.offsets[block] : self.offsets[block + 1]]


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks: one."""
    return range(min(1, len(plan.label_grid)))


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out the task.

    Args:
        index: 0.
        plan: the run's plan.
        context: where things are.

    Raises:
        WorldError: a store failed, or a table is damaged or missing.
        OurError: more labels than one graph holds.
    """
    watch = Stopwatch()
    with watch.phase("read"):
        offsets = _count_labels(plan, context)
        edges, counters = _collect_edges(plan, context, offsets)
    with watch.phase("compute"):
        solutions = [_solve(offsets[number], *edges[number]) for number in range(len(plan.classes))]
        totals, num_blocks = _add_up(plan, context, solutions)
    with watch.phase("write"):
        ids = _write_segments(plan, context, totals, num_blocks)
        for number, class_ids in enumerate(ids):
            kept = class_ids != 0
            left_out = write_properties(plan, context, number, class_ids[kept], totals[number].voxels[kept])
            counters["without_properties"] = counters.get("without_properties", 0) + left_out
        _write_luts(plan, context, solutions, ids)
    counters["segments"] = sum(int(np.count_nonzero(class_ids)) for class_ids in ids)
    counters["dropped"] = sum(len(class_ids) for class_ids in ids) - counters["segments"]
    outcome: Outcome = "written" if counters["segments"] else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters=counters)


def merge_rule(rule: ClassPlan) -> MergeRule:
    """Give the class's rule in the words of the labels room."""
    return MergeRule(MergeKind(rule.stitch), rule.min_iou)


def _count_labels(plan: RunPlan, context: TaskContext) -> list[Nodes]:
    """Give the offsets of every class."""
    counts = np.zeros((len(plan.classes), len(plan.label_grid)), np.int64)
    for block in range(len(plan.label_grid)):
        key = statistics_key(block)
        table = unpack_table(context.objects.get(key), key)
        for number in range(len(plan.classes)):
            counts[number, block] = len(table[column(number, "voxels")])
    return [count_offsets(class_counts) for class_counts in counts]


def _collect_edges(
    plan: RunPlan, context: TaskContext, offsets: list[Nodes]
) -> tuple[list[tuple[Nodes, Nodes]], dict[str, int]]:
    """Give the accepted edges of every class as pairs of nodes, and count what was judged."""
    kept: list[list[tuple[Nodes, Nodes]]] = [[] for _ in plan.classes]
    counters = {"pairs": 0, "merges": 0, "near_misses": 0}
    with EdgeTableWriter() as audit:
        for block, axis, neighbor in _faces(plan):
            key = edges_key(block, axis)
            stored = unpack_table(context.objects.get(key), key)
            for number, rule in enumerate(plan.classes):
                if rule.kind != "instances":
                    continue
                table = OverlapTable(*(stored[column(number, name)] for name in OverlapTable._fields))
                scored = accept_edges(table, merge_rule(rule))
                audit.add(rule.name, block, neighbor, axis, table, scored)
                kept[number].append(
                    (
                        _nodes_of(table.lower[scored.accepted], offsets[number], block),
                        _nodes_of(table.upper[scored.accepted], offsets[number], neighbor),
                    )
                )
                _count(counters, scored)
    context.objects.put(EDGES_KEY, audit.finish())
    return [_join(pairs) for pairs in kept], counters


def _faces(plan: RunPlan) -> Iterator[tuple[int, int, int]]:
    """Yield (block, axis, neighbor) of every face, where a class has instances."""
    if all(rule.kind == "semantic" for rule in plan.classes):
        return
    for block in range(len(plan.label_grid)):
        for axis in range(NUM_AXES):
            neighbor = plan.label_grid.upper_neighbor(block, axis)
            if neighbor is not None:
                yield block, axis, neighbor


def _nodes_of(labels: SegmentArray, offsets: Nodes, block: int) -> Nodes:
    """Turn a block's labels into nodes.

    Raises:
        CorruptData: a label that the block does not have.
    """
    nodes = offsets[block] + labels.astype(np.int64) - 1
    if len(nodes) and int(nodes.max()) >= offsets[block + 1]:
        raise CorruptData(
            f"resolving: an edge names label {int(labels.max())} of block {block}, which has "
            f"{offsets[block + 1] - offsets[block]}; tables of two runs are mixed: --restart"
        )
    return nodes


def _count(counters: dict[str, int], scored: ScoredEdges) -> None:
    counters["pairs"] += len(scored.accepted)
    counters["merges"] += int(np.count_nonzero(scored.accepted))
    counters["near_misses"] += int(np.count_nonzero(scored.near_miss))


def _join(pairs: list[tuple[Nodes, Nodes]]) -> tuple[Nodes, Nodes]:
    nothing: Nodes = np.empty(0, np.int64)
    lower = np.concatenate([nothing, *(pair[0] for pair in pairs)])
    upper = np.concatenate([nothing, *(pair[1] for pair in pairs)])
    return lower, upper


def _solve(offsets: Nodes, lower: Nodes, upper: Nodes) -> ClassSolution:
    num_objects, objects = connect_nodes(int(offsets[-1]), lower, upper)
    return ClassSolution(offsets, objects, num_objects)


def _add_up(
    plan: RunPlan, context: TaskContext, solutions: list[ClassSolution]
) -> tuple[list[LabelTable], list[NDArray[np.int64]]]:
    """Give every object's measures and the number of blocks it lies in, per class."""
    solutions[:] = [
        _as_one(solution) if rule.kind == "semantic" else solution
        for rule, solution in zip(plan.classes, solutions, strict=True)
    ]
    totals = [empty_table(solution.num_objects) for solution in solutions]
    num_blocks = [np.zeros(solution.num_objects, np.int64) for solution in solutions]
    for block in range(len(plan.label_grid)):
        key = statistics_key(block)
        stored = unpack_table(context.objects.get(key), key)
        for number, solution in enumerate(solutions):
            table = LabelTable(*(stored[column(number, name)] for name in LabelTable._fields))
            rows = solution.of_block(block).astype(np.int64)
            merge_rows(totals[number], rows, table)
            num_blocks[number][np.unique(rows)] += 1
    return totals, num_blocks


def _as_one(solution: ClassSolution) -> ClassSolution:
    """Make all labels one object: a semantic class has one id."""
    num_objects = min(1, len(solution.objects))
    return ClassSolution(solution.offsets, np.zeros_like(solution.objects), num_objects)


def _write_segments(
    plan: RunPlan, context: TaskContext, totals: list[LabelTable], num_blocks: list[NDArray[np.int64]]
) -> list[SegmentArray]:
    """Deal the ids of all classes and write the instance table."""
    ids: list[SegmentArray] = []
    next_id = 1
    with SegmentTableWriter(plan) as segments:
        for number, rule in enumerate(plan.classes):
            keep = np.ones(len(totals[number].voxels), np.bool_)
            if rule.kind == "instances":
                keep = keep_objects(totals[number], rule.min_size_voxels)
            ids.append(number_objects(keep, next_id))
            next_id += int(np.count_nonzero(keep))
            rows = take_rows(totals[number], keep)
            segments.add(rule.name, ids[number][keep], rows, num_blocks[number][keep])
    context.objects.put(SEGMENTS_KEY, segments.finish())
    return ids


def _write_luts(plan: RunPlan, context: TaskContext, solutions: list[ClassSolution], ids: list[SegmentArray]) -> None:
    """Write every block's map from label to id."""
    for block in range(len(plan.label_grid)):
        columns: dict[str, NDArray[Any]] = {
            column(number, "ids"): make_lut(ids[number], solution.of_block(block))
            for number, solution in enumerate(solutions)
        }
        context.objects.put(lut_key(block), pack_table(columns))
