import pytest

from pipeline.errors import CorruptData
from pipeline.ledger.objects import encode_document, read_document, read_object


def test_a_missing_object_is_none(store):
    assert read_object(store, "a") is None
    assert read_document(store, "a") is None


def test_a_document_comes_back_in_its_order(store):
    store.put("a", encode_document({"b": 1, "a": {"d": 2, "c": 3}}))
    assert str(read_document(store, "a")) == "{'b': 1, 'a': {'d': 2, 'c': 3}}"


@pytest.mark.parametrize("data", [b"", b"\xff", b"[1]", b"3"])
def test_what_is_no_document_is_told(store, data):
    store.put("a", data)
    with pytest.raises(CorruptData, match="reading a of the run"):
        read_document(store, "a")
