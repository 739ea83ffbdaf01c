import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import CorruptData
from pipeline.ledger.record import TaskRecord, UnitSum, decode_record, encode_record

SUMS = st.builds(
    UnitSum,
    st.text(max_size=5),
    st.tuples(*[st.integers(0, 10**6)] * 3),
    st.none() | st.integers(0, 2**32 - 1),
)
RECORDS = st.builds(
    TaskRecord,
    st.integers(0, 2**40),
    st.sampled_from(["written", "empty", "failed", "redo"]),
    st.lists(SUMS, max_size=3).map(tuple),
    st.integers(0, 10**6).map(lambda milliseconds: milliseconds / 1000),
    st.integers(1, 9),
    st.none() | st.text(),
    st.none() | st.text(),
)


@given(RECORDS)
def test_a_record_comes_back(record):
    line = encode_record(record)
    assert b"\n" not in line
    assert decode_record(line) == record


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b'[1,"x",[],0,1,null]', b'["a","w",[],0,1,null]'])
def test_a_line_that_is_no_record_is_refused(line):
    with pytest.raises(CorruptData, match="is not a record"):
        decode_record(line)


def test_only_written_and_empty_are_done():
    outcomes = ["written", "empty", "failed", "redo"]
    assert [TaskRecord(1, outcome).is_done for outcome in outcomes] == [True, True, False, False]
