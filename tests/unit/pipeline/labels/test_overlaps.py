import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.overlaps import alone_without, count_one_sided, count_overlaps, empty_overlaps, without


def rows(table):
    return [tuple(int(value) for value in row) for row in zip(*table, strict=True)]


def test_pairs_by_hand():
    lower = np.array([[[1, 1, 2, 2, 0, 3]]], np.uint32)
    upper = np.array([[[5, 5, 5, 0, 7, 4]]], np.uint32)
    assert rows(count_overlaps(lower, upper)) == [(1, 5, 2, 2, 3, 0), (2, 5, 1, 2, 3, 2), (3, 4, 1, 1, 1, 5)]


def test_ids_that_no_float_can_hold():
    big = np.uint64(2**63 + 1)
    lower = np.array([[[big, big + np.uint64(1), 0]]], np.uint64)
    upper = np.array([[[big + np.uint64(1), big, 9]]], np.uint64)
    found = rows(count_overlaps(lower, upper))
    assert found == [(2**63 + 1, 2**63 + 2, 1, 1, 1, 0), (2**63 + 2, 2**63 + 1, 1, 1, 1, 1)]


def test_against_a_loop_over_voxels():
    rng = np.random.default_rng(13)
    lower, upper = (rng.integers(0, 5, (7, 11, 13)).astype(np.uint16) for _ in range(2))
    expected, first = {}, {}
    for at, (a, b) in enumerate(zip(lower.ravel().tolist(), upper.ravel().tolist(), strict=True)):
        if a and b:
            expected[a, b] = expected.get((a, b), 0) + 1
            first.setdefault((a, b), at)
    found = rows(count_overlaps(lower, upper))
    assert [(row[0], row[1]) for row in found] == sorted(expected)
    assert {(row[0], row[1]): row[2] for row in found} == expected
    assert {(row[0], row[1]): row[5] for row in found} == first
    assert all(row[3] == (lower == row[0]).sum() and row[4] == (upper == row[1]).sum() for row in found)
    sparse = rows(count_overlaps(lower.astype(np.uint64) * np.uint64(2**60), upper.astype(np.uint64)))
    assert [(row[0] >> 60, *row[1:]) for row in sparse] == found


def test_one_sided_labels_by_hand():
    lower = np.array([[[1, 1, 2, 0, 1, 3]]], np.uint32)
    upper = np.array([[[0, 5, 0, 5, 0, 3]]], np.uint8)
    found = count_one_sided(lower, upper)
    assert (found.lower_only.tolist(), found.lower_only_voxels.tolist()) == ([1, 2], [2, 1])
    assert (found.upper_only.tolist(), found.upper_only_voxels.tolist()) == ([5], [1])
    assert all(len(part) == 0 for part in count_one_sided(lower, lower))
    assert [part.tolist() for part in alone_without(found, 1, 9)] == [[2], [1], [5], [1]]
    assert [part.tolist() for part in alone_without(found, 9, 5)] == [[1, 2], [2, 1], [], []]


def test_a_label_that_stands_for_no_object_is_taken_out():
    lower = np.array([[[1, 1, 2, 2, 0, 3]]], np.uint32)
    upper = np.array([[[5, 5, 5, 0, 7, 4]]], np.uint32)
    assert [row[:2] for row in rows(without(count_overlaps(lower, upper), 2, 4))] == [(1, 5)]


def test_nothing_shared():
    nothing = np.zeros((2, 3, 5), np.uint8)
    assert rows(count_overlaps(nothing, nothing + np.uint8(1))) == rows(empty_overlaps()) == []


def test_what_cannot_be_counted():
    labels = np.ones((2, 3, 5), np.uint32)
    with pytest.raises(OurError, match="shapes must be equal"):
        count_overlaps(labels, labels[1:])
    with pytest.raises(OurError, match="unsigned"):
        count_overlaps(labels, labels.astype(np.float64))
    with pytest.raises(OurError, match="unsigned"):
        count_overlaps(labels.astype(np.int64), labels)
