"""Solving a tree of groups gives what solving everything at once gives, and ids by the documented rule."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.geometry import BlockGrid, Box, GroupTree, leaf_of
from pipeline.labels.groups import (
    NO_ROW,
    SIDES,
    GroupGraph,
    Measures,
    add_labels,
    add_objects,
    deal_ids,
    empty_measures,
    join_nodes,
    pair_parts,
    rank_objects,
)
from pipeline.labels.resolve import connect_nodes, count_offsets, keep_objects
from pipeline.labels.statistics import LabelTable, take_rows

MIN_VOXELS = 9


class Labels:
    """Blocks with random labels, measures and accepted edges."""

    def __init__(self, blocks, seed):
        self.grid = BlockGrid(Box.of_shape(blocks), (1, 1, 1))
        rng = np.random.default_rng(seed)
        self.counts = rng.integers(0, 5, len(self.grid))
        self.offsets = count_offsets(self.counts)
        self.tables = [random_table(rng, count) for count in self.counts]
        self.edges = {}
        for block in range(len(self.grid)):
            for axis in range(3):
                above = self.grid.upper_neighbor(block, axis)
                if above is not None and min(self.counts[block], self.counts[above]) > 0:
                    num = rng.integers(0, 3)
                    ends = (rng.integers(0, self.counts[block], num), rng.integers(0, self.counts[above], num))
                    self.edges[block, axis] = tuple(end.astype(np.int64) for end in ends)


def random_table(rng, count):
    start = rng.integers(0, 50, (count, 3))
    return LabelTable(
        voxels=rng.integers(1, 8, count).astype(np.uint64),
        box_start=start,
        box_stop=start + rng.integers(1, 9, (count, 3)),
        coordinate_sum=rng.integers(0, 2**40, (count, 3)).astype(np.uint64),
        probability_sum=rng.integers(0, 2**20, count).astype(np.uint64),
        has_seed=rng.random(count) < 0.6,
    )


def solve_at_once(labels):
    """One graph of all labels: object of each node, and the measures of the objects."""
    pairs = [
        (labels.offsets[block] + lower, labels.offsets[labels.grid.upper_neighbor(block, axis)] + upper)
        for (block, axis), (lower, upper) in labels.edges.items()
    ]
    nothing = np.empty(0, np.int64)
    lower, upper = (np.concatenate([nothing, *(pair[end] for pair in pairs)]) for end in (0, 1))
    num_objects, objects = connect_nodes(int(labels.offsets[-1]), lower, upper)
    totals = empty_measures(num_objects)
    for block, table in enumerate(labels.tables):
        add_labels(totals, objects[labels.offsets[block] : labels.offsets[block + 1]], table)
    return objects, totals


def leaf_graph(labels, tree, node):
    """Nodes and edges of a leaf, its blocks and their offsets."""
    blocks = [labels.grid.index(position) for position in tree.positions(node)]
    offsets = dict(zip(blocks, count_offsets(labels.counts[blocks]), strict=False))
    nothing = np.empty(0, np.int64)
    lower, upper, ends = [nothing], [nothing], {side: [nothing] for side in SIDES}
    for (block, axis), pair in sorted(labels.edges.items()):
        above = labels.grid.upper_neighbor(block, axis)
        if block in offsets and above in offsets:
            lower.append(offsets[block] + pair[0])
            upper.append(offsets[above] + pair[1])
        elif block in offsets:
            ends[axis, 1].append(offsets[block] + pair[0])
        elif above in offsets:
            ends[axis, 0].append(offsets[above] + pair[1])
    joined = {side: np.concatenate(found) for side, found in ends.items()}
    num_nodes = int(labels.counts[blocks].sum())
    return GroupGraph(num_nodes, np.concatenate(lower), np.concatenate(upper), joined), blocks


def solve_as_tree(labels, tree, order):
    """The same through a tree; `order` shuffles the groups of a level. Gives id of each node, rows by id, and homes."""
    solved, up = {}, {}
    for level in range(tree.num_levels):
        nodes = [tree.number(level, index) for index in range(len(tree.level(level)))]
        for node in order.permutation(nodes).tolist():
            solved[node], up[node] = solve_group(labels, tree, node, up)
    ids, rows, homes = np.zeros(len(labels.offsets) and int(labels.offsets[-1]), np.uint64), {}, {}
    given = {tree.num_nodes - 1: (1, np.empty(0, np.uint64))}
    for node in reversed(range(tree.num_nodes)):
        first, open_ids = given[node]
        graph_objects, firsts, is_open, ranks, kept, blocks = solved[node]
        by_object = deal_ids(is_open, ranks, first, open_ids)
        for row in range(len(kept)):
            rows[first + row] = [part[row].tolist() for part in (*kept.table, kept.num_labels)]
            homes[first + row] = node
        first += len(kept)
        for place, child in enumerate(tree.children(node)):
            given[child] = (first, by_object[graph_objects[firsts[place] : firsts[place + 1]]])
            first += up[child][2]
        for place, block in enumerate(blocks):
            found = by_object[graph_objects[firsts[place] : firsts[place + 1]]]
            ids[labels.offsets[block] : labels.offsets[block + 1]] = found
    return ids, rows, homes


def solve_group(labels, tree, node, up):
    children = tree.children(node)
    if children:
        firsts = count_offsets(np.array([len(up[child][1]) for child in children]))
        level, _ = tree.locate(node)
        shape = BlockGrid(tree.box(node), tree.level(level - 1).core).shape
        lower, upper, ends = pair_parts(shape, [up[child][0] for child in children], firsts)
        graph, blocks = GroupGraph(int(firsts[-1]), lower, upper, ends), []
    else:
        graph, blocks = leaf_graph(labels, tree, node)
        firsts = count_offsets(labels.counts[blocks])
    joined = join_nodes(graph, is_root=node == tree.num_nodes - 1)
    totals = empty_measures(joined.num_objects)
    for place, child in enumerate(children):
        add_objects(totals, joined.objects[firsts[place] : firsts[place + 1]], up[child][1])
    for place, block in enumerate(blocks):
        add_labels(totals, joined.objects[firsts[place] : firsts[place + 1]], labels.tables[block])
    ranks = rank_objects(joined.is_open, keep_objects(totals.table, MIN_VOXELS))
    stays = ~joined.is_open & (ranks != NO_ROW)
    kept, opened = (Measures(take_rows(totals.table, at), totals.num_labels[at]) for at in (stays, joined.is_open))
    num_kept = len(kept) + sum(up[child][2] for child in children)
    ends = {side: ranks[joined.objects[nodes]] for side, nodes in graph.ends.items()}
    return (joined.objects, firsts, joined.is_open, ranks, kept, blocks), (ends, opened, num_kept)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    blocks=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)),
    most=st.integers(1, 20),
    seed=st.integers(0, 10**6),
)
def test_a_tree_gives_what_one_graph_gives(blocks, most, seed):
    labels = Labels(blocks, seed)
    tree = GroupTree(blocks, leaf_of(blocks, most))
    ids, rows, homes = solve_as_tree(labels, tree, np.random.default_rng(seed))
    objects, totals = solve_at_once(labels)
    keep = keep_objects(totals.table, MIN_VOXELS)
    pairs = {(int(obj), int(id_)) for obj, id_ in zip(objects, ids, strict=True)}
    assert {obj for obj, id_ in pairs if id_} == set(np.flatnonzero(keep).tolist())
    assert len(pairs) == len(totals)
    named = {obj: id_ for obj, id_ in pairs if id_}
    assert sorted(named.values()) == list(range(1, int(keep.sum()) + 1))
    for obj, id_ in named.items():
        assert rows[id_] == [part[obj].tolist() for part in (*totals.table, totals.num_labels)]
    assert_rule(labels, tree, ids, homes)
    again = solve_as_tree(labels, tree, np.random.default_rng(seed + 1))
    assert (again[0] == ids).all()
    assert again[1] == rows


def assert_rule(labels, tree, ids, homes):
    """An object is numbered in the smallest group that holds all its blocks: a group first, then its parts in order."""
    blocks_of = {}
    for block in range(len(labels.grid)):
        for id_ in ids[labels.offsets[block] : labels.offsets[block + 1]].tolist():
            blocks_of.setdefault(id_, set()).add(labels.grid.position(block))
    for id_, node in homes.items():
        inside = set(tree.positions(node))
        assert blocks_of[id_] <= inside

    def walk(node):
        yield node
        for child in tree.children(node):
            yield from walk(child)

    place = {node: number for number, node in enumerate(walk(tree.num_nodes - 1))}
    places = [place[homes[id_]] for id_ in sorted(homes)]
    assert places == sorted(places)
