import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.contingency import PairTable, count_pairs, merge_tables

HUGE = 2**63 + 2**53 + 1


def as_dict(table: PairTable) -> dict[tuple[int, int], int]:
    return {(int(a), int(b)): int(n) for a, b, n in zip(table.left, table.right, table.num_voxels, strict=True)}


def test_counts_by_hand_with_ids_beyond_float():
    left = np.array([[[0, 5, 5, HUGE, HUGE, HUGE + 1]]], np.uint64)
    right = np.array([[[0, 0, 9, 9, 9, 9]]], np.uint16)
    table = count_pairs(left, right)
    assert as_dict(table) == {(0, 0): 1, (5, 0): 1, (5, 9): 1, (HUGE, 9): 2, (HUGE + 1, 9): 1}
    assert table.left.dtype == np.uint64
    ids, sizes = table.right_sizes()
    assert dict(zip(ids.tolist(), sizes.tolist(), strict=True)) == {0: 2, 9: 4}


@pytest.mark.parametrize("num_ids", [3, 400])
def test_dense_and_sparse_paths_agree_with_a_plain_count(num_ids):
    rng = np.random.default_rng(num_ids)
    left = rng.integers(0, num_ids, (7, 11, 13)).astype(np.uint64) * np.uint64(2**50 + 7)
    right = rng.integers(0, num_ids, (7, 11, 13)).astype(np.uint32)
    expected: dict[tuple[int, int], int] = {}
    for pair in zip(left.ravel().tolist(), right.ravel().tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    table = count_pairs(left, right)
    assert as_dict(table) == expected
    assert list(as_dict(table)) == sorted(expected)


def test_blocks_merge_to_the_whole_in_any_order():
    rng = np.random.default_rng(1)
    left = rng.integers(0, 9, (13, 7, 5)).astype(np.uint64)
    right = rng.integers(0, 5, (13, 7, 5)).astype(np.uint64)
    parts = [count_pairs(left[a:b], right[a:b]) for a, b in ((0, 3), (3, 8), (8, 13))]
    whole = as_dict(count_pairs(left, right))
    assert as_dict(merge_tables(parts)) == whole
    assert as_dict(merge_tables([parts[2], merge_tables([parts[1], parts[0]])])) == whole
    assert as_dict(merge_tables([])) == {}


def test_input_is_not_changed():
    left = np.array([[[7, 7, 3]]], np.uint64)
    count_pairs(left, left)
    assert left.tolist() == [[[7, 7, 3]]]


def test_refuses_other_shapes_and_signed_labels():
    with pytest.raises(OurError, match="shapes"):
        count_pairs(np.zeros((1, 2, 3), np.uint8), np.zeros((1, 2, 5), np.uint8))
    with pytest.raises(OurError, match="unsigned"):
        count_pairs(np.zeros((1, 2, 3), np.int32), np.zeros((1, 2, 3), np.uint8))
