import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.resolve import (
    connect_nodes,
    count_offsets,
    keep_objects,
    make_lut,
)
from pipeline.labels.statistics import empty_table


def test_offsets_are_exclusive_sums():
    assert count_offsets(np.array([3, 0, 2])).tolist() == [0, 3, 3, 5]
    assert count_offsets(np.array([], np.int64)).tolist() == [0]


def test_objects_are_numbered_by_their_smallest_node():
    num_objects, objects = connect_nodes(6, np.array([5, 4]), np.array([1, 2]))
    assert num_objects == 4
    assert objects.tolist() == [0, 1, 2, 3, 2, 1]


def test_without_edges_every_node_is_an_object():
    assert connect_nodes(3, np.empty(0, np.int64), np.empty(0, np.int64))[1].tolist() == [0, 1, 2]
    assert connect_nodes(0, np.empty(0, np.int64), np.empty(0, np.int64))[0] == 0


@pytest.mark.parametrize(
    ("num_nodes", "lower", "upper", "expected"),
    [
        (3, [0], [3], "ends 3"),
        (3, [-1], [0], "ends -1"),
        (3, [0, 1], [2], "2 lower ends for 1"),
        (2**31, [0], [1], "more than"),
    ],
)
def test_graphs_that_cannot_be(num_nodes, lower, upper, expected):
    with pytest.raises(OurError, match=expected):
        connect_nodes(num_nodes, np.array(lower), np.array(upper))


def test_objects_stay_when_large_enough_and_seeded():
    objects = empty_table(3)
    objects.voxels[:] = [5, 4, 9]
    objects.has_seed[:] = [True, True, False]
    assert keep_objects(objects, 5).tolist() == [True, False, False]


def test_a_map_begins_with_background():
    assert make_lut(np.array([7, 0, 9], np.uint64), np.array([2, 1], np.int32)).tolist() == [0, 9, 0]
