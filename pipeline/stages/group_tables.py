"""What the tasks of resolve leave for each other: open objects for the parent, solutions, ids for the parts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.arrays import SegmentArray
from pipeline.labels.groups import SIDES, Measures, Nodes, Side
from pipeline.labels.statistics import LabelTable
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import column, group_key
from pipeline.storage import pack_table, unpack_table

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class OpenObjects:
    """What a group tells its parent, of one class."""

    ends: dict[Side, Nodes]
    """Per side, the row of the open object at each edge that leads out."""
    measures: Measures
    """Of the open objects."""
    num_kept: int
    """Closed objects that stay, in the group and all its parts."""
    largest: NDArray[np.uint64]
    """Of those, the largest ones: their places in the order of ids, from 0."""
    largest_voxels: NDArray[np.uint64]
    """And their sizes."""


@dataclass(frozen=True)
class Solution:
    """What a group must remember until it knows its ids, of one class."""

    objects: NDArray[np.int32]
    """Object of each node."""
    first_nodes: Nodes
    """First node of each block or part, and the number of nodes."""
    is_open: NDArray[np.bool_]
    """Per object: whether the parent deals its id."""
    rows: Nodes
    """Per object: see `rank_objects`."""
    kept: Measures
    """Of the closed objects that stay."""
    parts_kept: Nodes
    """Closed objects that stay, of each part; empty for a leaf."""


@dataclass(frozen=True)
class DealtIds:
    """What a parent tells a part, of one class."""

    first_id: int
    """Id of the part's first closed object that stays."""
    open_ids: SegmentArray
    """Ids of its open objects; 0: dropped."""


def save_open(context: TaskContext, node: int, classes: list[OpenObjects]) -> None:
    """Leave the open objects of a group for its parent."""
    columns: Columns = {}
    for number, open_objects in enumerate(classes):
        counts = np.array([open_objects.num_kept], np.int64)
        values: Columns = {"num_kept": counts, **_of_measures(open_objects.measures)}
        values |= {"largest": open_objects.largest, "largest_voxels": open_objects.largest_voxels}
        values |= {f"ends{axis}{side}": open_objects.ends[axis, side] for axis, side in SIDES}
        columns |= {column(number, name): array for name, array in values.items()}
    context.objects.put(group_key(node, "open"), pack_table(columns))


def load_open(context: TaskContext, node: int, num_classes: int) -> list[OpenObjects]:
    """Read the open objects of a group.

    Raises:
        WorldError: they are missing or damaged.
    """
    stored = _read(context, group_key(node, "open"))
    return [
        OpenObjects(
            ends={(axis, side): stored[column(number, f"ends{axis}{side}")] for axis, side in SIDES},
            measures=_to_measures(stored, number),
            num_kept=int(stored[column(number, "num_kept")][0]),
            largest=stored[column(number, "largest")],
            largest_voxels=stored[column(number, "largest_voxels")],
        )
        for number in range(num_classes)
    ]


def save_solution(context: TaskContext, node: int, classes: list[Solution]) -> None:
    """Remember a group's solution."""
    columns: Columns = {}
    for number, solution in enumerate(classes):
        values = {field.name: getattr(solution, field.name) for field in fields(solution) if field.name != "kept"}
        values |= _of_measures(solution.kept)
        columns |= {column(number, name): array for name, array in values.items()}
    context.objects.put(group_key(node, "solved"), pack_table(columns))


def load_solution(context: TaskContext, node: int, num_classes: int) -> list[Solution]:
    """Read a group's solution.

    Raises:
        WorldError: it is missing or damaged.
    """
    stored = _read(context, group_key(node, "solved"))
    return [
        Solution(
            objects=stored[column(number, "objects")],
            first_nodes=stored[column(number, "first_nodes")],
            is_open=stored[column(number, "is_open")],
            rows=stored[column(number, "rows")],
            kept=_to_measures(stored, number),
            parts_kept=stored[column(number, "parts_kept")],
        )
        for number in range(num_classes)
    ]


def save_ids(context: TaskContext, node: int, classes: list[DealtIds]) -> None:
    """Leave the ids of a group for it."""
    columns: Columns = {}
    for number, dealt in enumerate(classes):
        columns[column(number, "first_id")] = np.array([dealt.first_id], np.uint64)
        columns[column(number, "open_ids")] = dealt.open_ids
    context.objects.put(group_key(node, "ids"), pack_table(columns))


def load_ids(context: TaskContext, node: int, num_classes: int) -> list[DealtIds]:
    """Read the ids that a group was dealt.

    Raises:
        WorldError: they are missing or damaged.
    """
    stored = _read(context, group_key(node, "ids"))
    return [
        DealtIds(int(stored[column(number, "first_id")][0]), stored[column(number, "open_ids")])
        for number in range(num_classes)
    ]


def _read(context: TaskContext, key: str) -> Columns:
    return unpack_table(context.objects.get(key), key)


def _of_measures(measures: Measures) -> Columns:
    return {**measures.table._asdict(), "num_labels": measures.num_labels}


def _to_measures(stored: Columns, number: int) -> Measures:
    table = LabelTable(*(stored[column(number, name)] for name in LabelTable._fields))
    return Measures(table, stored[column(number, "num_labels")])
