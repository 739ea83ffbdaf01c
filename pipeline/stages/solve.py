"""The upward half of resolve: the objects of one group, from its blocks or from the groups it is made of.

1. nodes: labels of its blocks, or open objects of its parts
2. edges: accepted pairs at the faces inside; per outer side the inner ends of those that lead out
3. objects, with their measures; the closed ones are kept or dropped for good
4. what is open goes up, with how many ids the group and its parts need
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptData
from pipeline.geometry import BlockGrid
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.groups import (
    NO_ROW,
    SIDES,
    GroupGraph,
    GroupObjects,
    Measures,
    Nodes,
    Side,
    add_labels,
    add_objects,
    empty_measures,
    join_nodes,
    pair_parts,
    rank_objects,
)
from pipeline.labels.merges import ScoredEdges
from pipeline.labels.resolve import count_offsets, keep_objects
from pipeline.labels.statistics import LabelTable, take_rows
from pipeline.stages.context import TaskContext
from pipeline.stages.faces import (
    Face,
    is_inside,
    judge,
    judged_columns,
    lower_faces,
    overlaps_of,
    read_faces,
    read_tables,
    upper_faces,
)
from pipeline.stages.group_tables import OpenObjects, Solution, load_open
from pipeline.stages.layout import column, statistics_key
from pipeline.stages.plan import ClassPlan, RunPlan
from pipeline.stages.properties import PRECOMPUTED, largest

_NOTHING: Nodes = np.empty(0, np.int64)


@dataclass(frozen=True)
class SolvedGroup:
    """A group, solved, one entry per class."""

    solutions: list[Solution]
    """What it must remember."""
    opened: list[OpenObjects]
    """What its parent must know."""
    counters: dict[str, int]
    """What was judged."""


def solve_blocks(plan: RunPlan, context: TaskContext, node: int) -> SolvedGroup:
    """Solve a leaf from the tables of its blocks.

    Raises:
        WorldError: a store failed, or a table is damaged or missing.
    """
    blocks = [plan.label_grid.index(position) for position in plan.group_tree.positions(node)]
    offsets = _count_labels(plan, context, blocks)
    graphs, counters = _read_graphs(plan, context, node, dict(zip(blocks, range(len(blocks)), strict=True)), offsets)
    joined = [_join(plan, node, rule, graph) for rule, graph in zip(plan.classes, graphs, strict=True)]
    totals = [empty_measures(objects.num_objects) for objects in joined]
    wanted = ((place, statistics_key(block)) for place, block in enumerate(blocks))
    for place, stored in read_tables(context.kept, wanted):
        for number in range(len(plan.classes)):
            table = LabelTable(*(stored[column(number, name)] for name in LabelTable._fields))
            first, last = offsets[number][place : place + 2]
            add_labels(totals[number], joined[number].objects[first:last], table)
    closed = [
        _close(plan, number, graphs[number], joined[number], totals[number], offsets[number], [])
        for number in range(len(plan.classes))
    ]
    return SolvedGroup([solution for solution, _ in closed], [opened for _, opened in closed], counters)


def solve_parts(plan: RunPlan, context: TaskContext, node: int) -> SolvedGroup:
    """Solve a group from the open objects of its parts.

    Raises:
        WorldError: a store failed, or a table is damaged or missing.
    """
    tree = plan.group_tree
    children = tree.children(node)
    below = BlockGrid(tree.box(node), tree.level(tree.locate(node)[0] - 1).core)
    by_child = [load_open(context, child, len(plan.classes)) for child in children]
    solutions, opened = [], []
    for number, rule in enumerate(plan.classes):
        parts = [classes[number] for classes in by_child]
        first_nodes = count_offsets(np.array([len(part.measures) for part in parts], np.int64))
        lower, upper, ends = pair_parts(below.shape, [part.ends for part in parts], first_nodes)
        graph = GroupGraph(int(first_nodes[-1]), lower, upper, ends)
        objects = _join(plan, node, rule, graph)
        totals = empty_measures(objects.num_objects)
        for place, part in enumerate(parts):
            add_objects(totals, objects.objects[first_nodes[place] : first_nodes[place + 1]], part.measures)
        solution, up = _close(plan, number, graph, objects, totals, first_nodes, parts)
        solutions.append(solution)
        opened.append(up)
    return SolvedGroup(solutions, opened, {})


def _count_labels(plan: RunPlan, context: TaskContext, blocks: list[int]) -> list[Nodes]:
    """Give the first node of each of the blocks, per class."""
    counts = np.zeros((len(plan.classes), len(blocks)), np.int64)
    wanted = ((place, statistics_key(block)) for place, block in enumerate(blocks))
    columns = {column(number, "voxels") for number in range(len(plan.classes))}
    for place, stored in read_tables(context.kept, wanted, columns):
        for number in range(len(plan.classes)):
            counts[number, place] = len(stored[column(number, "voxels")])
    return [count_offsets(class_counts) for class_counts in counts]


@dataclass
class _Edges:
    """Edges of one class as they are found."""

    lower: list[Nodes]
    upper: list[Nodes]
    ends: dict[Side, list[Nodes]]

    def graph(self, num_nodes: int) -> GroupGraph:
        ends = {side: np.concatenate(found) for side, found in self.ends.items()}
        return GroupGraph(num_nodes, np.concatenate(self.lower), np.concatenate(self.upper), ends)


def _read_graphs(
    plan: RunPlan, context: TaskContext, node: int, places: dict[int, int], offsets: list[Nodes]
) -> tuple[list[GroupGraph], dict[str, int]]:
    """Read and judge the faces of a leaf; counts those that are its own, the ones above its blocks."""
    found = [_Edges([_NOTHING], [_NOTHING], {side: [_NOTHING] for side in SIDES}) for _ in plan.classes]
    counters = {"pairs": 0, "merges": 0, "near_misses": 0}
    box = plan.group_tree.box(node)
    columns = judged_columns(plan)
    for face, stored in read_faces(context, upper_faces(plan, node), columns):
        for number, lower, upper, scored in _judged(plan, context, face, stored):
            _count(counters, scored)
            inner = _nodes_of(lower, offsets[number], places[face.block], face.block)
            if is_inside(plan, box, face.neighbor):
                found[number].lower.append(inner)
                found[number].upper.append(_nodes_of(upper, offsets[number], places[face.neighbor], face.neighbor))
            else:
                found[number].ends[face.axis, 1].append(inner)
    for face, stored in read_faces(context, lower_faces(plan, node), columns):
        for number, _, upper, _ in _judged(plan, context, face, stored):
            inner = _nodes_of(upper, offsets[number], places[face.neighbor], face.neighbor)
            found[number].ends[face.axis, 0].append(inner)
    return [edges.graph(int(offsets[number][-1])) for number, edges in enumerate(found)], counters


def _judged(
    plan: RunPlan, context: TaskContext, face: Face, stored: dict[str, NDArray[Any]]
) -> list[tuple[int, SegmentArray, SegmentArray, ScoredEdges]]:
    """Give the accepted pairs of a face per class of instances, in the table's order, and all judgements."""
    judged = []
    for number, rule in enumerate(plan.classes):
        if rule.kind == "instances":
            table = overlaps_of(number, stored)
            scored = judge(plan, context, face, number, table)
            judged.append((number, table.lower[scored.accepted], table.upper[scored.accepted], scored))
    return judged


def _nodes_of(labels: SegmentArray, offsets: Nodes, place: int, block: int) -> Nodes:
    """Turn a block's labels into nodes.

    Raises:
        CorruptData: a label that the block does not have.
    """
    nodes = offsets[place] + labels.astype(np.int64) - 1
    if len(nodes) and int(nodes.max()) >= offsets[place + 1]:
        raise CorruptData(
            f"resolving: an edge names label {int(labels.max())} of block {block}, which has "
            f"{offsets[place + 1] - offsets[place]}; tables of two runs are mixed: --restart"
        )
    return nodes


def _count(counters: dict[str, int], scored: ScoredEdges) -> None:
    counters["pairs"] += len(scored.accepted)
    counters["merges"] += int(np.count_nonzero(scored.accepted))
    counters["near_misses"] += int(np.count_nonzero(scored.near_miss))


def _join(plan: RunPlan, node: int, rule: ClassPlan, graph: GroupGraph) -> GroupObjects:
    is_root = node == plan.group_tree.num_nodes - 1
    return join_nodes(graph, as_one=rule.kind == "semantic", is_root=is_root)


def _close(
    plan: RunPlan,
    number: int,
    graph: GroupGraph,
    joined: GroupObjects,
    totals: Measures,
    first_nodes: Nodes,
    parts: list[OpenObjects],
) -> tuple[Solution, OpenObjects]:
    """Keep or drop the closed objects of one class, and gather what goes up."""
    rule = plan.classes[number]
    keep = np.ones(joined.num_objects, np.bool_)
    if rule.kind == "instances":
        keep = keep_objects(totals.table, rule.min_size_voxels)
    rows = rank_objects(joined.is_open, keep)
    kept = _take(totals, ~joined.is_open & (rows != NO_ROW))
    parts_kept = np.array([part.num_kept for part in parts], np.int64)
    places, voxels = _largest(plan, number, kept, parts)
    solution = Solution(joined.objects, first_nodes, joined.is_open, rows, kept, parts_kept)
    opened = OpenObjects(
        ends={side: rows[joined.objects[nodes]] for side, nodes in graph.ends.items()},
        measures=_take(totals, joined.is_open),
        num_kept=len(kept) + int(parts_kept.sum()),
        largest=places,
        largest_voxels=voxels,
    )
    return solution, opened


def _take(measures: Measures, rows: NDArray[np.bool_]) -> Measures:
    return Measures(take_rows(measures.table, rows), measures.num_labels[rows])


def _largest(
    plan: RunPlan, number: int, kept: Measures, parts: list[OpenObjects]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Choose the objects of a group and its parts that segment properties could list; gives places and sizes."""
    wanted = [
        output.num_segment_properties
        for output in plan.outputs
        if output.class_index == number and output.format == PRECOMPUTED
    ]
    places, voxels = [np.arange(len(kept), dtype=np.uint64)], [kept.table.voxels]
    first = len(kept)
    for part in parts:
        places.append(part.largest + np.uint64(first))
        voxels.append(part.largest_voxels)
        first += part.num_kept
    all_places, all_voxels = np.concatenate(places), np.concatenate(voxels)
    chosen = largest(all_places, all_voxels, max(wanted, default=0))
    return all_places[chosen], all_voxels[chosen]
