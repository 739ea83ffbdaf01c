"""Tables as bytes."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.errors import CorruptData, OurError
from pipeline.storage import pack_table, unpack_table

COLUMNS = {"label": np.array([2**64 - 1, 2**53 + 1], np.uint64), "box": np.zeros((0, 6), np.int64), "n": np.array(7)}


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back(compress):
    found = unpack_table(pack_table(COLUMNS, compress=compress), "t")
    assert list(found) == list(COLUMNS)
    for name, column in COLUMNS.items():
        assert found[name].dtype == column.dtype
        assert found[name].shape == column.shape
        np.testing.assert_array_equal(found[name], column)


@settings(max_examples=25, deadline=None)
@given(arrays.arrays(st.sampled_from(["u1", "u8", "i4", "f4"]), st.tuples(st.integers(0, 5), st.integers(0, 5))))
def test_any_array_comes_back(column):
    np.testing.assert_array_equal(unpack_table(pack_table({"a": column.T}), "t")["a"], column.T)


def test_same_arrays_same_bytes():
    assert pack_table(COLUMNS) == pack_table(COLUMNS)
    zeros = {"slab": np.zeros((9, 64, 64), np.uint32)}
    assert len(pack_table(zeros, compress=True)) < len(pack_table(zeros)) / 50


def test_every_torn_or_changed_table_is_seen():
    data = pack_table(COLUMNS)
    for torn in (b"", data[:5], data[:12], data[: len(data) // 2], data[:-1], data + b"x", b"PK" + data):
        with pytest.raises(CorruptData, match="edges/3"):
            unpack_table(torn, "edges/3")
    for position in range(0, len(data), 37):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(CorruptData):
            unpack_table(bytes(changed), "t")


def test_objects_and_odd_names_are_refused():
    with pytest.raises(OurError, match="object"):
        pack_table({"a": np.array([None])})
    with pytest.raises(OurError, match="a/b"):
        pack_table({"a/b": np.zeros(1)})


def test_only_the_columns_wanted_are_decoded():
    data = pack_table({"a": np.arange(3), "b": np.arange(5)})
    assert list(unpack_table(data, "t", {"b"})) == ["b"]
    with pytest.raises(CorruptData, match="table t has no column c"):
        unpack_table(data, "t", {"a", "c"})


def test_headers_are_parsed_by_one_thread_at_a_time(monkeypatch):
    # Two parsers at once are what Python up to 3.11.7 may fail on, too rarely to be waited for.
    parsing, most = [], []
    real = np.lib.format.read_array

    def slow(*arguments, **options):
        parsing.append(threading.get_ident())
        most.append(len(parsing))
        time.sleep(0.01)
        parsing.remove(threading.get_ident())
        return real(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "read_array", slow)
    data = pack_table(COLUMNS)
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: unpack_table(data, "t"), range(8)))
    assert max(most) == 1
    assert len(most) == len(tables) * len(COLUMNS)
