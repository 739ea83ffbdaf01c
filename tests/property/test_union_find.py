"""The fast union-find against a plain one."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.labels.resolve import connect_nodes


def plain_union_find(ids, edges):
    """Smallest id of everything that edges connect, one edge at a time, in Python integers."""
    parent = {value: value for value in ids}

    def find(value):
        while parent[value] != value:
            value = parent[value]
        return value

    for a, b in edges:
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    return {value: find(value) for value in parent}


edge_lists = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(edges=edge_lists, extra=st.integers(1, 5))
def test_nodes(edges, extra):
    num_nodes = 40 + extra
    lower, upper = (np.array([edge[end] for edge in edges], np.int64) for end in (0, 1))
    num_objects, objects = connect_nodes(num_nodes, lower, upper)
    smallest = plain_union_find(range(num_nodes), edges)
    rank = {value: place for place, value in enumerate(sorted(set(smallest.values())))}
    assert num_objects == len(rank)
    assert objects.tolist() == [rank[smallest[node]] for node in range(num_nodes)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(edges=edge_lists, seed=st.integers(0, 999))
def test_the_order_of_edges_does_not_matter(edges, seed):
    order = np.random.default_rng(seed).permutation(len(edges))
    lower, upper = (np.array([edge[end] for edge in edges], np.int64) for end in (0, 1))
    first = connect_nodes(41, lower, upper)[1]
    assert (connect_nodes(41, upper[order], lower[order])[1] == first).all()
