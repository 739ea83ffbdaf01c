import numpy as np
import pytest

from pipeline.errors import CorruptData
from pipeline.stages.orders import OrderBook


def book_of(rows):
    columns = zip(*rows, strict=True)
    types = (np.int64, np.int64, np.int64, np.uint64, np.uint64, np.bool_)
    return OrderBook(*(np.array(column, kind) for column, kind in zip(columns, types, strict=True)))


ROWS = [(0, 7, 2, 4, 5, False), (1, 7, 2, 4, 5, True), (0, 3, 0, 1, 2**32 - 1, False), (0, 7, 1, 9, 9, True)]


def test_orders_are_found_by_face_and_class():
    book = OrderBook.unpacked(book_of(ROWS).packed(), "orders")
    found = book.of_face(0, 7, 2)
    assert [part.tolist() for part in found] == [[4], [5], [False]]
    assert book.of_face(1, 7, 2).merge.tolist() == [True]
    assert book.of_face(0, 3, 0).upper.tolist() == [2**32 - 1]
    assert book.of_face(0, 7, 0) is None
    assert book.of_face(0, 8, 0) is None
    assert OrderBook.empty().of_face(0, 0, 0) is None


def test_the_same_orders_give_the_same_bytes():
    assert book_of(ROWS).packed() == book_of(ROWS[::-1]).packed() != book_of(ROWS[1:]).packed()


def test_damaged_orders_are_refused():
    with pytest.raises(CorruptData, match="torn"):
        OrderBook.unpacked(book_of(ROWS).packed()[:-3], "orders")
