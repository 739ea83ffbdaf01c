"""Solves the objects of a volume as a tree: each group of blocks on its own, and then groups of groups.

A group's *nodes* are the labels of its blocks, or the open objects of the groups it is made of. Edges inside the
group join nodes to objects. An object that an edge leads out of is *open*: it goes up to the parent as one row of
measures. All others are closed: whole, kept or dropped here, and never heard of above.

    +-------+-------+
    | 1   2=|=2   3 |    Two groups and the edges over the face between them. Each side lists its end of every edge,
    |     4=|=5     |    in one order that both follow, as rows of its own open objects: [2, 4] and [2, 5].
    +-------+-------+    The parent pairs the two lists. It needs no labels and searches for nothing.

Ids are dealt class by class, in a group before its parts, in a group by the order of the objects' smallest nodes. So
an id depends on labels, edges and the shape of the tree alone: never on the number of workers or on the order in which
they finished. With one group that is the order of the smallest label of all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.resolve import connect_nodes
from pipeline.labels.statistics import LabelTable, empty_table, merge_rows

Nodes = NDArray[np.int64]
Side = tuple[int, int]
"""Axis, and 0 for the side below or 1 for the one above."""
SIDES: tuple[Side, ...] = ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
"""All sides, in the order in which tables list them."""

NO_ROW = -1
"""Row of an object that was dropped."""


@dataclass(frozen=True)
class Measures:
    """What is known of objects, one row each."""

    table: LabelTable
    """Their measures."""
    num_labels: NDArray[np.int64]
    """Labels of blocks that they were put together from, shape (n,)."""

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.num_labels)


@dataclass(frozen=True)
class GroupGraph:
    """The nodes of a group and the edges at them, of one class."""

    num_nodes: int
    """Labels of its blocks, or open objects of its parts."""
    lower: Nodes
    """One end of each edge inside."""
    upper: Nodes
    """The other end."""
    ends: Mapping[Side, Nodes]
    """Per side, the inner end of each edge that leads out of it, in an order that the neighbor follows too."""


@dataclass(frozen=True)
class GroupObjects:
    """The objects of a group, of one class; numbered by their smallest node."""

    objects: NDArray[np.int32]
    """Object of each node."""
    num_objects: int
    """How many there are."""
    is_open: NDArray[np.bool_]
    """Whether it may go on outside, shape (num_objects,)."""


def join_nodes(graph: GroupGraph, *, as_one: bool = False, is_root: bool = False) -> GroupObjects:
    """Find the objects of a group and which of them are open.

    Args:
        graph: the group.
        as_one: all nodes are one object: a semantic class has one id.
        is_root: nothing lies outside.

    Raises:
        OurError: an edge leads out of the root, or an end lies outside the nodes.
    """
    if as_one:
        num_objects = min(1, graph.num_nodes)
        is_open = np.full(num_objects, not is_root)
        return GroupObjects(np.zeros(graph.num_nodes, np.int32), num_objects, is_open)
    num_objects, objects = connect_nodes(graph.num_nodes, graph.lower, graph.upper)
    is_open = np.zeros(num_objects, np.bool_)
    for nodes in graph.ends.values():
        is_open[objects[nodes]] = True
    if is_root and is_open.any():
        raise OurError(f"joining labels: {int(is_open.sum())} objects go on outside the whole volume")
    return GroupObjects(objects, num_objects, is_open)


def empty_measures(num_rows: int) -> Measures:
    """Make the measures of objects without a voxel: the neutral element of adding."""
    return Measures(empty_table(num_rows), np.zeros(num_rows, np.int64))


def add_labels(target: Measures, objects: NDArray[np.int32], table: LabelTable) -> None:
    """Add the labels of one block to the objects they belong to.

    Args:
        target: objects; changed in place.
        objects: object of each label, in label order.
        table: the block's labels.
    """
    rows = objects.astype(np.int64)
    merge_rows(target.table, rows, table)
    np.add.at(target.num_labels, rows, 1)


def add_objects(target: Measures, objects: NDArray[np.int32], parts: Measures) -> None:
    """Add the open objects of a part to the objects they belong to.

    Args:
        target: objects; changed in place.
        objects: object of each of the part's open objects, in their order.
        parts: their measures.
    """
    rows = objects.astype(np.int64)
    merge_rows(target.table, rows, parts.table)
    np.add.at(target.num_labels, rows, parts.num_labels)


def rank_objects(is_open: NDArray[np.bool_], keep: NDArray[np.bool_]) -> Nodes:
    """Number the open objects among themselves, and the closed ones that stay among themselves.

    Args:
        is_open: which objects are open, shape (n,).
        keep: which closed objects stay; says nothing of open ones.

    Returns:
        Row of each object, shape (n,); `NO_ROW` for those that are dropped.
    """
    rows = np.full(len(is_open), NO_ROW, np.int64)
    rows[is_open] = np.arange(int(is_open.sum()), dtype=np.int64)
    stays = keep & ~is_open
    rows[stays] = np.arange(int(stays.sum()), dtype=np.int64)
    return rows


def deal_ids(is_open: NDArray[np.bool_], rows: Nodes, first_id: int, open_ids: SegmentArray) -> SegmentArray:
    """Give the id of every object of a group.

    Args:
        is_open: which objects are open, shape (n,).
        rows: see `rank_objects`.
        first_id: id of the first closed object that stays; at least 1.
        open_ids: ids of the open objects, as the parent has dealt them; 0 where it dropped them.

    Returns:
        Shape (n,); 0 for objects that are dropped.

    Raises:
        OurError: the number of open ids is not the number of open objects, or ids pass 2^64 - 1.
    """
    stays = ~is_open & (rows != NO_ROW)
    num_kept = int(stays.sum())
    if len(open_ids) != int(is_open.sum()):
        raise OurError(f"dealing ids: {len(open_ids)} ids for {int(is_open.sum())} open objects")
    if first_id < 1 or first_id + num_kept - 1 > np.iinfo(np.uint64).max:
        raise OurError(f"dealing ids: {num_kept} ids from {first_id} on do not fit 1..2^64 - 1")
    ids = np.zeros(len(is_open), np.uint64)
    ids[is_open] = open_ids[rows[is_open]]
    ids[stays] = np.uint64(first_id) + rows[stays].astype(np.uint64)
    return ids


def pair_parts(
    grid_shape: tuple[int, int, int], ends: list[Mapping[Side, Nodes]], first_nodes: Nodes
) -> tuple[Nodes, Nodes, dict[Side, Nodes]]:
    """Join the sides at which the parts of a group meet.

    Args:
        grid_shape: parts along z, y and x.
        ends: per part, z slowest, the rows of its open objects at each side.
        first_nodes: the node of each part's first open object.

    Returns:
        Both ends of every edge between two parts, and the ends at the outer sides, all as nodes of the group.

    Raises:
        OurError: two parts disagree about how many edges lead over the face between them.
    """
    nothing: Nodes = np.empty(0, np.int64)
    lower, upper = [nothing], [nothing]
    outer: dict[Side, list[Nodes]] = {side: [nothing] for side in SIDES}
    strides = (grid_shape[1] * grid_shape[2], grid_shape[2], 1)
    for part in range(len(ends)):
        for axis in range(3):
            at = part // strides[axis] % grid_shape[axis]
            if at == 0:
                outer[axis, 0].append(first_nodes[part] + ends[part][axis, 0])
            above = first_nodes[part] + ends[part][axis, 1]
            if at + 1 == grid_shape[axis]:
                outer[axis, 1].append(above)
                continue
            neighbor = part + strides[axis]
            below = first_nodes[neighbor] + ends[neighbor][axis, 0]
            if len(above) != len(below):
                raise OurError(f"joining groups: one counts {len(above)} edges over a face, the other {len(below)}")
            lower.append(above)
            upper.append(below)
    return np.concatenate(lower), np.concatenate(upper), {side: np.concatenate(found) for side, found in outer.items()}
