"""Tables of named arrays as bytes: what blocks leave behind for later stages.

Layout: 8 bytes magic and version, 4 bytes CRC-32C of the rest (little-endian), then npz without pickle.
"""

from __future__ import annotations

import io
import struct
import threading
import zipfile
from collections.abc import Collection, Mapping
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptData, OurError

_MAGIC = b"sam4emT1"
_HEADER = struct.Struct("<8sI")

_PARSING = threading.RLock()
"""Held while NumPy parses a header, with `ast.literal_eval`: up to Python 3.11.7 that can fail with "AST constructor
recursion depth mismatch" where two threads do so at once. Source: python/cpython issue 106905."""


def pack_table(columns: Mapping[str, NDArray[Any]], *, compress: bool = False) -> bytes:
    """Turn named arrays into bytes; the same arrays give the same bytes.

    Args:
        columns: any shapes and plain dtypes; names are identifiers.
        compress: deflate, worth it for label slabs.

    Raises:
        OurError: an array of Python objects, or a name that is no identifier.
    """
    body = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(body, "w", method, compresslevel=1) as archive:
        for name, column in columns.items():
            if not name.isidentifier() or column.dtype.hasobject:
                raise OurError(f"table column {name!r} of {column.dtype} cannot be stored")
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = method
            with archive.open(member, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(column), allow_pickle=False)
    data = body.getvalue()
    return _HEADER.pack(_MAGIC, google_crc32c.value(data)) + data


def unpack_table(data: bytes, name: str, only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Turn bytes back into named arrays.

    Args:
        data: what `pack_table` gave.
        name: of the object, for the message.
        only: columns to decode, where not all are wanted: headers cost more than a short column itself.

    Raises:
        CorruptData: torn, damaged, not a table, or without one of the columns.
    """
    if len(data) < _HEADER.size:
        raise CorruptData(f"table {name} is cut short: {len(data)} bytes")
    magic, expected = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != _MAGIC:
        raise CorruptData(f"{name} is no sam4em table, or one of another version: it begins with {magic!r}")
    found = google_crc32c.value(body)
    if found != expected:
        raise CorruptData(f"table {name} is torn: checksum {found:08x} instead of {expected:08x}")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}
        missing = set(only or ()) - set(members)
        if missing:
            raise CorruptData(f"table {name} has no column {min(missing)}; it is one of another version")
        return {
            column: _column(archive.read(member))
            for column, member in members.items()
            if only is None or column in only
        }


def _column(data: bytes) -> NDArray[Any]:
    """Turn the bytes of one npy file into its array; inflating is done, outside the lock."""
    with _PARSING:
        column: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return column
