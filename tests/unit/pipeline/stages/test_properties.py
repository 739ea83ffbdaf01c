import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.properties import largest


@given(st.lists(st.integers(1, 2**63), min_size=0, max_size=20), st.integers(0, 25))
def test_the_largest_are_chosen_and_ties_go_to_the_smaller_id(sizes, count):
    ids = np.arange(7, 7 + len(sizes), dtype=np.uint64)
    chosen = largest(ids, np.array(sizes, np.uint64), count)
    expected = sorted(sorted(range(len(sizes)), key=lambda row: (-sizes[row], row))[:count])
    assert chosen.tolist() == expected
