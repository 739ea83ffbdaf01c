import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.statistics import empty_table, measure_labels, merge_rows, take_rows

LABELS = np.zeros((5, 7, 11), np.uint32)
LABELS[1:3, 2, 3:8] = 1
LABELS[4, 6, 10] = 2
PROBABILITY = np.full(LABELS.shape, 130, np.uint8)
PROBABILITY[1, 2, 3] = 200


def test_measures_by_hand():
    table = measure_labels(LABELS, PROBABILITY, (100, 0, 1000), 200)
    assert table.voxels.tolist() == [10, 1]
    assert table.box_start.tolist() == [[101, 2, 1003], [104, 6, 1010]]
    assert table.box_stop.tolist() == [[103, 3, 1008], [105, 7, 1011]]
    assert table.coordinate_sum.tolist() == [[1015, 20, 10050], [104, 6, 1010]]
    assert table.probability_sum.tolist() == [1370, 130]
    assert table.has_seed.tolist() == [True, False]


def test_without_a_seed_threshold_every_label_holds_one():
    assert measure_labels(LABELS, PROBABILITY, (0, 0, 0)).has_seed.all()


def test_sums_stay_exact_far_from_the_origin():
    rng = np.random.default_rng(11)
    labels = (rng.integers(0, 13, (31, 37, 41)) % 7).astype(np.uint32)
    start = (10**9 + 7, 3 * 10**9 + 1, 5)
    table = measure_labels(labels, np.zeros(labels.shape, np.uint8), start)
    for label in range(1, 7):
        voxels = np.argwhere(labels == label).astype(object)
        expected = [int(voxels[:, axis].sum()) + start[axis] * len(voxels) for axis in range(3)]
        assert [int(value) for value in table.coordinate_sum[label - 1]] == expected


def test_blocks_add_up_to_objects():
    table = measure_labels(LABELS, PROBABILITY, (0, 0, 0), 200)
    both = empty_table(2)
    merge_rows(both, np.array([1, 1]), table)
    assert both.voxels.tolist() == [0, 11]
    assert both.box_start[1].tolist() == [1, 2, 3]
    assert both.box_stop[1].tolist() == [5, 7, 11]
    assert both.has_seed.tolist() == [False, True]
    assert take_rows(both, np.array([False, True])).probability_sum.tolist() == [1500]


def test_no_label_gives_no_row():
    assert all(len(c) == 0 for c in measure_labels(LABELS * 0, PROBABILITY, (0, 0, 0)))


@pytest.mark.parametrize(
    ("labels", "start", "expected"),
    [
        (LABELS * 2, (0, 0, 0), "2 are missing"),
        (LABELS[1:], (0, 0, 0), "shapes must be equal"),
        (LABELS, (0, -1, 0), "below zero"),
    ],
)
def test_what_cannot_be_measured(labels, start, expected):
    with pytest.raises(OurError, match=expected):
        measure_labels(labels, PROBABILITY, start)


def test_rows_must_fit():
    table = measure_labels(LABELS, PROBABILITY, (0, 0, 0))
    with pytest.raises(OurError, match="3 target rows for 2"):
        merge_rows(empty_table(3), np.array([0, 1, 2]), table)
