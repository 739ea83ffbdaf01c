import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OurError
from pipeline.ledger.done_map import SCAN_BYTES, DoneMap


@given(st.integers(1, 137), st.lists(st.tuples(st.booleans(), st.integers(0, 136)), max_size=60), st.integers(0, 140))
def test_agrees_with_a_set(num_tasks, steps, start):
    done, truth = DoneMap(num_tasks), set()
    for is_added, index in steps:
        if index >= num_tasks:
            continue
        if is_added:
            assert done.add(index) == (index not in truth)
            truth.add(index)
        else:
            assert done.discard(index) == (index in truth)
            truth.discard(index)
    assert len(done) == len(truth)
    assert [index in done for index in range(num_tasks)] == [index in truth for index in range(num_tasks)]
    missing = [index for index in range(start, num_tasks) if index not in truth]
    assert done.next_missing(start) == (missing[0] if missing else None)
    assert done.is_full == (len(truth) == num_tasks)


def test_scan_crosses_pages():
    num_tasks = 8 * SCAN_BYTES * 2 + 11
    done = DoneMap(num_tasks)
    for index in range(num_tasks):
        done.add(index)
    assert done.next_missing(0) is None
    done.discard(num_tasks - 1)
    assert done.next_missing(3) == num_tasks - 1


def test_an_index_outside_is_a_bug():
    with pytest.raises(OurError, match="outside a stage of 7 tasks"):
        DoneMap(7).add(7)


def test_all_stages_of_a_petavoxel_take_less_than_two_bytes_per_block():
    num_blocks = 20_000_003
    # predict, label, match (three pairs per block), relabel, and pyramid levels with 1/7 as many units
    stages = [num_blocks, num_blocks, 3 * num_blocks, 1, num_blocks, num_blocks // 7]
    total = sum(DoneMap(count).num_bytes for count in stages)
    assert total <= 2 * num_blocks
    assert np.zeros(1, np.uint8).nbytes * num_blocks < 8 * total
