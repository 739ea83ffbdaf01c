"""Puts the labels of blocks together: which are one object, and which objects stay.

A label of a block has a *node* number, offsets[block] + label - 1. Nodes that edges connect are one object, and
objects are numbered by their smallest node; `pipeline.labels.groups` deals ids in that order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import OurError
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.statistics import LabelTable

MAX_NODES = 2**31 - 2
"""Largest number of nodes of one graph. Source: scipy.sparse.csgraph indexes with int32."""


def count_offsets(num_labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the first node of every block.

    Args:
        num_labels: labels of each block, in block order, shape (n,).

    Returns:
        Shape (n + 1,); the last entry is the number of nodes.
    """
    offsets = np.zeros(len(num_labels) + 1, np.int64)
    np.cumsum(num_labels, out=offsets[1:])
    return offsets


def connect_nodes(num_nodes: int, lower: NDArray[np.int64], upper: NDArray[np.int64]) -> tuple[int, NDArray[np.int32]]:
    """Find the objects that edges make of nodes.

    Args:
        num_nodes: how many nodes there are.
        lower: one end of each edge, a node, shape (e,).
        upper: the other end.

    Returns:
        The number of objects, and the object of each node, shape (num_nodes,): objects are numbered from 0 in
        the order of their smallest node.

    Raises:
        OurError: an end lies outside the nodes, or there are more nodes than one graph holds.
    """
    _check_edges(num_nodes, lower, upper)
    if len(lower) == 0:
        return num_nodes, np.arange(num_nodes, dtype=np.int32)
    # Built by hand: one int8 per edge instead of float64, and no sorting of duplicates.
    graph = csr_array(
        (np.ones(len(lower), np.int8), (lower.astype(np.int32), upper.astype(np.int32))),
        shape=(num_nodes, num_nodes),
    )
    num_objects, found = connected_components(graph, directed=False)
    return int(num_objects), _order_by_first(int(num_objects), found)


def _check_edges(num_nodes: int, lower: NDArray[np.int64], upper: NDArray[np.int64]) -> None:
    """Refuse graphs that cannot be.

    Raises:
        OurError: see `connect_nodes`.
    """
    if num_nodes > MAX_NODES:
        raise OurError(f"connecting labels: {num_nodes} labels are more than the {MAX_NODES} of one graph")
    if len(lower) != len(upper):
        raise OurError(f"connecting labels: {len(lower)} lower ends for {len(upper)} upper ends")
    for end in (lower, upper):
        if len(end) and not 0 <= int(end.min()) <= int(end.max()) < num_nodes:
            raise OurError(f"connecting labels: ends {end.min()}..{end.max()} for {num_nodes} labels")


def _order_by_first(num_objects: int, found: NDArray[np.int32]) -> NDArray[np.int32]:
    """Renumber objects so that they come in the order of their smallest node."""
    largest = np.maximum.accumulate(found)
    if largest[0] == 0 and int(np.diff(largest).max(initial=0)) <= 1:
        return found
    first = np.empty(num_objects, np.int32)
    nodes = np.arange(len(found), dtype=np.int32)
    # Of several writes to one place the last one stays, so writing backwards leaves the smallest node.
    first[found[::-1]] = nodes[::-1]
    rank = np.empty(num_objects, np.int32)
    rank[np.argsort(first)] = np.arange(num_objects, dtype=np.int32)
    return rank[found]


def keep_objects(objects: LabelTable, min_voxels: int) -> NDArray[np.bool_]:
    """Choose the objects that stay, now that they are whole.

    Args:
        objects: one row per object.
        min_voxels: smallest number of voxels that stays.

    Returns:
        True for objects that are large enough and hold a seed, shape (n,).
    """
    return (objects.voxels >= np.uint64(min_voxels)) & objects.has_seed


def make_lut(object_ids: SegmentArray, objects: NDArray[np.int32]) -> SegmentArray:
    """Make one block's map from label to id.

    Args:
        object_ids: id of each object, 0 for those removed.
        objects: object of each of the block's labels, in label order, shape (n,).

    Returns:
        Shape (n + 1,): entry 0 is background.
    """
    lut = np.zeros(len(objects) + 1, np.uint64)
    lut[1:] = object_ids[objects]
    return lut
