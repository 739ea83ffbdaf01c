"""The faces between label blocks as resolve and audit read them: overlap tables, and how their pairs are judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from pipeline.geometry import Box, Vector
from pipeline.labels.merges import MergeKind, MergeRule, ScoredEdges, accept_edges
from pipeline.labels.overlaps import OverlapTable
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import column, edges_key
from pipeline.stages.match import NUM_AXES
from pipeline.stages.plan import ClassPlan, RunPlan
from pipeline.storage import ObjectStore, unpack_table

# Tables asked for ahead of the one in work: hides the latency of an object store.
_READ_AHEAD = 8

Columns = dict[str, NDArray[Any]]
Name = TypeVar("Name")


class Face(NamedTuple):
    """The face between a block and the next one along an axis."""

    block: int
    """The block below."""
    axis: int
    """0 z, 1 y, 2 x."""
    neighbor: int
    """The block above."""


def merge_rule(rule: ClassPlan) -> MergeRule:
    """Give the class's rule in the words of the labels room."""
    return MergeRule(MergeKind(rule.stitch), rule.min_iou)


def has_instances(plan: RunPlan) -> bool:
    """Whether a class has objects that are stitched."""
    return any(rule.kind == "instances" for rule in plan.classes)


def upper_faces(plan: RunPlan, node: int) -> Iterator[Face]:
    """Yield the faces above the blocks of a group; every face of the volume belongs to one group so."""
    if not has_instances(plan):
        return
    for position in plan.group_tree.positions(node):
        block = plan.label_grid.index(position)
        for axis in range(NUM_AXES):
            neighbor = plan.label_grid.upper_neighbor(block, axis)
            if neighbor is not None:
                yield Face(block, axis, neighbor)


def lower_faces(plan: RunPlan, node: int) -> Iterator[Face]:
    """Yield the faces below a group: between one of its blocks and one of another group."""
    box = plan.group_tree.box(node)
    if not has_instances(plan):
        return
    for position in plan.group_tree.positions(node):
        for axis in range(NUM_AXES):
            if position[axis] == box.start[axis] > 0:
                below = plan.label_grid.index(_stepped(position, axis, -1))
                yield Face(below, axis, plan.label_grid.index(position))


def is_inside(plan: RunPlan, box: Box, block: int) -> bool:
    """Whether a block lies in a box of block positions."""
    position = plan.label_grid.position(block)
    return all(a <= at < b for a, at, b in zip(box.start, position, box.stop, strict=True))


def _stepped(position: Vector, axis: int, step: int) -> Vector:
    stepped = list(position)
    stepped[axis] += step
    return (stepped[0], stepped[1], stepped[2])


def judge(plan: RunPlan, context: TaskContext, face: Face, number: int, table: OverlapTable) -> ScoredEdges:
    """Judge the pairs of one class at one face: by the rule, and by what the user ordered."""
    orders = context.orders.of_face(number, face.block, face.axis)
    return accept_edges(table, merge_rule(plan.classes[number]), orders)


def judged_columns(plan: RunPlan) -> set[str]:
    """Name the columns of a stored face that `overlaps_of` takes, of all classes of instances."""
    numbers = [number for number, rule in enumerate(plan.classes) if rule.kind == "instances"]
    return {column(number, name) for number in numbers for name in OverlapTable._fields}


def overlaps_of(number: int, stored: Columns) -> OverlapTable:
    """Give one class's pairs of a stored face."""
    return OverlapTable(*(stored[column(number, name)] for name in OverlapTable._fields))


def read_faces(
    context: TaskContext, faces: Iterable[Face], only: Collection[str] | None = None
) -> Iterator[tuple[Face, Columns]]:
    """Read the overlap tables of faces, in their order; see `read_tables`.

    Raises:
        WorldError: a table is missing or damaged.
    """
    wanted = ((face, edges_key(face.block, face.axis)) for face in faces)
    return read_tables(context.kept, wanted, only)


def read_tables(
    store: ObjectStore, wanted: Iterable[tuple[Name, str]], only: Collection[str] | None = None
) -> Iterator[tuple[Name, Columns]]:
    """Read tables by key, in their order, some ahead of the one in work.

    Args:
        store: where they are.
        wanted: what to call each, and its key.
        only: columns to decode; None: all.

    Raises:
        WorldError: a table is missing or damaged.
    """
    with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="tables") as pool:
        waiting: deque[tuple[Name, str, Future[bytes]]] = deque()
        for name, key in wanted:
            waiting.append((name, key, pool.submit(store.get, key)))
            if len(waiting) > _READ_AHEAD:
                yield _unpacked(*waiting.popleft(), only)
        while waiting:
            yield _unpacked(*waiting.popleft(), only)


def _unpacked(name: Name, key: str, data: Future[bytes], only: Collection[str] | None) -> tuple[Name, Columns]:
    return name, unpack_table(data.result(), key, only)
