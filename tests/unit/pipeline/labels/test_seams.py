import numpy as np

from pipeline.labels.overlaps import alone_without, count_one_sided, count_overlaps, without
from pipeline.labels.seams import count_mismatch, find_ids, find_mismatch

LOWER_IDS = np.array([0, 7, 0, 8], np.uint64)
UPPER_IDS = np.array([0, 7, 9], np.uint64)


def test_a_slab_by_hand():
    # 4 is foreign to the lower block, 3 to the upper one; label 2 of the lower block was dropped.
    lower = np.array([[[1, 1, 1, 2, 2, 4, 3, 0, 4, 3]]], np.uint32)
    upper = np.array([[[1, 2, 0, 0, 2, 2, 3, 0, 0, 0]]], np.uint8)
    table = without(count_overlaps(lower, upper), 4, 3)
    alone = alone_without(count_one_sided(lower, upper), 4, 3)
    found = count_mismatch(table, alone, LOWER_IDS, UPPER_IDS)
    assert (found.num_labelled, found.num_mismatched) == (5, 4)
    mask = find_mismatch(lower, upper, LOWER_IDS, UPPER_IDS)
    assert mask.ravel().tolist() == [False, True, True, False, True, False, False, False, False, True]
    assert find_ids(lower, LOWER_IDS).ravel().tolist() == [7, 7, 7, 0, 0, 0, 8, 0, 0, 8]


def test_random_slabs_give_what_their_mask_gives():
    rng = np.random.default_rng(5)
    for _ in range(20):
        lower, upper = rng.integers(0, 5, (3, 5, 7)).astype(np.uint32), rng.integers(0, 4, (3, 5, 7)).astype(np.uint8)
        lower_ids, upper_ids = (np.append(0, rng.integers(0, 3, n)).astype(np.uint64) for n in (3, 2))
        table = without(count_overlaps(lower, upper), 4, 3)
        alone = alone_without(count_one_sided(lower, upper), 4, 3)
        found = count_mismatch(table, alone, lower_ids, upper_ids)
        assert found.num_mismatched == find_mismatch(lower, upper, lower_ids, upper_ids).sum()
        known = (lower < 4) & (upper < 3)
        shown = (find_ids(lower, lower_ids) > 0) | (find_ids(upper, upper_ids) > 0)
        assert found.num_labelled == (known & shown).sum()
