import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OurError
from pipeline.geometry import BlockGrid, Box, GroupTree, leaf_of

extents = st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 11))


@given(blocks=extents, most=st.integers(1, 40))
def test_every_level_holds_every_block_once(blocks, most):
    tree = GroupTree(blocks, leaf_of(blocks, most))
    assert math.prod(tree.leaf) <= max(most, 1)
    for level in range(tree.num_levels):
        nodes = [tree.number(level, index) for index in range(len(tree.level(level)))]
        found = sorted(position for node in nodes for position in tree.positions(node))
        assert found == [BlockGrid(Box.of_shape(blocks), (1, 1, 1)).position(n) for n in range(math.prod(blocks))]
        assert [tree.locate(node) for node in nodes] == [(level, index) for index in range(len(nodes))]
    assert tree.locate(tree.num_nodes - 1)[0] == tree.num_levels - 1
    assert len(tree.level(tree.num_levels - 1)) == 1


@given(blocks=extents, most=st.integers(1, 40))
def test_parents_and_children_agree_and_children_come_first(blocks, most):
    tree = GroupTree(blocks, leaf_of(blocks, most))
    seen = []
    for node in range(tree.num_nodes):
        children = tree.children(node)
        assert len(children) <= 8
        assert all(child < node and tree.parent(child) == node for child in children)
        if children:
            assert sorted(p for child in children for p in tree.positions(child)) == list(tree.positions(node))
        seen += children
    assert sorted(seen) == list(range(tree.num_nodes - 1))


def test_a_leaf_is_near_to_a_cube_or_the_whole_grid():
    assert leaf_of((3, 5, 7), 105) == (3, 5, 7)
    assert leaf_of((3, 5, 7), 104) == (4, 4, 4)
    assert leaf_of((1, 100, 100), 512) == (1, 32, 16)
    assert leaf_of((9, 9, 9), 1) == (1, 1, 1)


def test_what_does_not_exist():
    tree = GroupTree((2, 2, 2), (1, 1, 1))
    assert (tree.num_levels, tree.num_nodes) == (2, 9)
    with pytest.raises(OurError, match="does not exist"):
        tree.locate(9)
    with pytest.raises(OurError, match="is the root"):
        tree.parent(8)
