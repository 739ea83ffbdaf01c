"""resolve: which labels of which blocks are one object, and which id it gets. A tree of tasks over groups of blocks.

    solve   leaf  leaf  leaf  leaf     the blocks of a group: objects, and which of them go on outside
    solve      group       group       the open objects of up to eight groups
    solve            root              all is known: every class gets its range of ids
    deal       group       group       ids of the open objects -> ids of its own, and of its parts' open ones
    deal    leaf  leaf  leaf  leaf     one map per block

A task is given groups, never the whole: its memory is that of its own labels or open objects (DECISIONS.md). A run of
one group has one task, which solves and deals. Each group writes the part of `segments.parquet` with the objects that
are closed in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.arrays import SegmentArray
from pipeline.labels.groups import deal_ids
from pipeline.labels.resolve import make_lut
from pipeline.stages.context import TaskContext
from pipeline.stages.group_tables import (
    DealtIds,
    OpenObjects,
    Solution,
    load_ids,
    load_solution,
    save_ids,
    save_open,
    save_solution,
)
from pipeline.stages.layout import IDS_KEY, SEGMENTS_KEY, column, lut_key, part_key
from pipeline.stages.plan import RunPlan
from pipeline.stages.properties import write_properties
from pipeline.stages.report import Outcome, Stopwatch, TaskReport
from pipeline.stages.run_tables import SegmentTableWriter
from pipeline.stages.solve import solve_blocks, solve_parts
from pipeline.storage import pack_table

NAME = "resolve"

Step = Literal["solve", "deal"]


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks: first all groups are solved, leaves first, then ids are dealt, root first.

    The root deals as soon as it is solved, in one task.
    """
    return range(2 * plan.group_tree.num_nodes - 1)


def locate(index: int, plan: RunPlan) -> tuple[Step, int]:
    """Turn a task's index into what it does, and with which group."""
    num_nodes = plan.group_tree.num_nodes
    return ("solve", index) if index < num_nodes else ("deal", 2 * num_nodes - 2 - index)


def needs(plan: RunPlan, index: int) -> Iterator[int]:
    """Yield the tasks of this stage that a task needs."""
    step, node = locate(index, plan)
    if step == "solve":
        yield from plan.group_tree.children(node)
        return
    num_nodes = plan.group_tree.num_nodes
    parent = plan.group_tree.parent(node)
    yield parent if parent == num_nodes - 1 else 2 * num_nodes - 2 - parent


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the run's plan.
        context: where things are.

    Raises:
        WorldError: a store failed, or a table is damaged or missing.
        OurError: more labels than one graph holds.
    """
    step, node = locate(index, plan)
    watch = Stopwatch()
    if step == "deal":
        with watch.phase("read"):
            solutions = load_solution(context, node, len(plan.classes))
            dealt = load_ids(context, node, len(plan.classes))
        with watch.phase("write"):
            counters = _deal(plan, context, node, solutions, dealt)
        return _report(index, watch, counters)
    with watch.phase("solve"):
        is_leaf = plan.group_tree.locate(node)[0] == 0
        solved = solve_blocks(plan, context, node) if is_leaf else solve_parts(plan, context, node)
    counters = dict(solved.counters)
    with watch.phase("write"):
        if node == plan.group_tree.num_nodes - 1:
            dealt, left_out = _deal_root(plan, context, solved.opened)
            counters |= {"without_properties": left_out} | _deal(plan, context, node, solved.solutions, dealt)
        else:
            save_solution(context, node, solved.solutions)
            save_open(context, node, solved.opened)
    return _report(index, watch, counters)


def _report(index: int, watch: Stopwatch, counters: dict[str, int]) -> TaskReport:
    outcome: Outcome = "written" if counters.get("segments") or counters.get("merges") else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters=counters)


def _deal_root(plan: RunPlan, context: TaskContext, opened: list[OpenObjects]) -> tuple[list[DealtIds], int]:
    """Give every class its range of ids, note the ranges, and write segment properties."""
    first_id, left_out = 1, 0
    dealt, ranges = [], {}
    for number, (rule, top) in enumerate(zip(plan.classes, opened, strict=True)):
        dealt.append(DealtIds(first_id, np.empty(0, np.uint64)))
        ranges[rule.name] = {"first_id": first_id, "num_ids": top.num_kept}
        ids = top.largest + np.uint64(first_id)
        left_out += write_properties(plan, context, number, ids, top.largest_voxels, top.num_kept)
        first_id += top.num_kept
    context.objects.put(IDS_KEY, json.dumps(ranges, indent=1).encode())
    return dealt, left_out


def _deal(
    plan: RunPlan, context: TaskContext, node: int, solutions: list[Solution], dealt: list[DealtIds]
) -> dict[str, int]:
    """Deal the ids of a group: rows of the instance table, and maps of its blocks or ids for its parts."""
    ids = [
        deal_ids(solution.is_open, solution.rows, given.first_id, given.open_ids)
        for solution, given in zip(solutions, dealt, strict=True)
    ]
    with SegmentTableWriter(plan) as segments:
        for rule, solution, given in zip(plan.classes, solutions, dealt, strict=True):
            own_ids = np.arange(len(solution.kept), dtype=np.uint64) + np.uint64(given.first_id)
            segments.add(rule.name, own_ids, solution.kept.table, solution.kept.num_labels)
    context.objects.put(part_key(SEGMENTS_KEY, plan, node), segments.finish())
    if plan.group_tree.locate(node)[0] == 0:
        _write_luts(plan, context, node, solutions, ids)
    else:
        _deal_parts(plan, context, node, solutions, dealt, ids)
    closed = sum(int(np.count_nonzero(~solution.is_open)) for solution in solutions)
    num_kept = sum(len(solution.kept) for solution in solutions)
    return {"segments": num_kept, "dropped": closed - num_kept}


def _write_luts(
    plan: RunPlan, context: TaskContext, node: int, solutions: list[Solution], ids: list[SegmentArray]
) -> None:
    """Write the map from label to id of every block of a leaf."""
    for place, position in enumerate(plan.group_tree.positions(node)):
        columns: dict[str, NDArray[Any]] = {}
        for number, solution in enumerate(solutions):
            first, last = solution.first_nodes[place : place + 2]
            columns[column(number, "ids")] = make_lut(ids[number], solution.objects[first:last])
        context.objects.put(lut_key(plan.label_grid.index(position)), pack_table(columns))


def _deal_parts(
    plan: RunPlan,
    context: TaskContext,
    node: int,
    solutions: list[Solution],
    dealt: list[DealtIds],
    ids: list[SegmentArray],
) -> None:
    """Leave every part the ids of its open objects, and the first one of its own."""
    next_ids = [given.first_id + len(solution.kept) for solution, given in zip(solutions, dealt, strict=True)]
    for place, child in enumerate(plan.group_tree.children(node)):
        given = []
        for number, solution in enumerate(solutions):
            first, last = solution.first_nodes[place : place + 2]
            given.append(DealtIds(next_ids[number], ids[number][solution.objects[first:last]]))
            next_ids[number] += int(solution.parts_kept[place])
        save_ids(context, child, given)
