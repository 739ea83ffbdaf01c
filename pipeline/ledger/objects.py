"""What the ledger needs of a store: whole objects by key. No rename, no append, no listing."""

from __future__ import annotations

import json
from typing import Any, Protocol

from pipeline.errors import CorruptData, VolumeNotFound


class ObjectStore(Protocol):
    """Whole objects under keys with '/' between their parts."""

    def get(self, key: str) -> bytes:
        """Read one object; VolumeNotFound when there is none."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write one object, whole or not at all; replaces what was there."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write one object unless the key exists; of several callers exactly one is told True."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is an object."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object; a missing one is no error."""
        ...


def read_object(store: ObjectStore, key: str) -> bytes | None:
    """Read one object, or give None where there is none."""
    try:
        return store.get(key)
    except VolumeNotFound:
        return None


def read_document(store: ObjectStore, key: str) -> dict[str, Any] | None:
    """Read one JSON object, or give None where there is none.

    Raises:
        CorruptData: there is something that is not a JSON object.
    """
    data = read_object(store, key)
    if data is None:
        return None
    try:
        document = json.loads(data)
    except ValueError as error:
        raise CorruptData(f"reading {key} of the run: it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise CorruptData(f"reading {key} of the run: found {type(document).__name__}, expected an object")
    return document


def encode_document(document: dict[str, Any]) -> bytes:
    """Encode one JSON object; its keys keep their order."""
    return json.dumps(document, indent=1).encode()
