"""Zarr stores by URL, and the two readings of a node: its attributes, its array."""

from __future__ import annotations

import json
from typing import Any

import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from pipeline.errors import CorruptData, VolumeFormatError
from pipeline.storage.faults import Mode, store_faults
from pipeline.storage.locations import join, local_path, read_bytes, refuse_read_only_scheme, scheme_of
from pipeline.storage.options import StorageOptions

METADATA_NAMES = ("zarr.json", ".zarray", ".zgroup")
"""Files of which a zarr node has one: version 3, version 2 array, version 2 group."""

_BLOSC_HEADER_BYTES = 16


def open_store(url: str, options: StorageOptions, *, writable: bool = False) -> Store:
    """Give the zarr store whose root is the URL."""
    if writable:
        refuse_read_only_scheme(url)
    path = local_path(url)
    if path is not None:
        return LocalStore(path, read_only=not writable)
    with store_faults(f"opening {url}", "write" if writable else "read"):
        return FsspecStore.from_url(url, storage_options=options.fsspec_options(scheme_of(url)), read_only=not writable)


class GuardedStore(WrapperStore[Store]):
    """Sees what decoders do not: objects without bytes, and Blosc chunks that are cut short.

    zarr takes an empty shard for a missing one, and numcodecs reads past the end of a short Blosc buffer.
    """

    holds_blosc = False
    """Whether whole objects (other than metadata) are Blosc buffers."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read and check.

        Raises:
            CorruptData: the object has no bytes, or fewer or more than its Blosc header says.
        """
        value = await super().get(key, prototype, byte_range)
        if value is None:
            return None
        if len(value) == 0:
            raise CorruptData(f"object {key} has no bytes")
        if self.holds_blosc and byte_range is None and not _is_metadata(key):
            _check_blosc(key, value.to_bytes())
        return value


def _is_metadata(key: str) -> bool:
    """Whether a key names metadata and not a chunk."""
    return key.rpartition("/")[2] in ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


def _check_blosc(key: str, data: bytes) -> None:
    """Compare a Blosc buffer's length with its header.

    Source: c-blosc, README_CHUNK_FORMAT: bytes 12 to 15 are the compressed size, little-endian.
    """
    if len(data) < _BLOSC_HEADER_BYTES:
        raise CorruptData(f"chunk {key} is cut short: {len(data)} bytes are no Blosc header")
    expected = int.from_bytes(data[12:16], "little")
    if expected != len(data):
        raise CorruptData(f"chunk {key} has {len(data)} bytes, but its Blosc header says {expected}")


def _is_blosc(array: zarr.Array[Any]) -> bool:
    """Whether an array's stored objects are Blosc buffers."""
    codecs = array.compressors
    return bool(codecs) and array.shards is None and type(codecs[-1]).__name__ in ("BloscCodec", "Blosc")


def open_array(url: str, options: StorageOptions, *, writable: bool = False) -> zarr.Array[Any]:
    """Open an existing array of zarr version 2 or 3.

    Raises:
        VolumeFormatError: its metadata or codecs are not usable.
        VolumeNotFound: there is none.
    """
    store = GuardedStore(open_store(url, options, writable=writable))
    mode: Mode = "write" if writable else "read"
    with store_faults(f"opening zarr array {url}", mode, contents=VolumeFormatError):
        array = zarr.open_array(store=store, mode="r+" if writable else "r")
        store.holds_blosc = _is_blosc(array)
    return array


class ZarrNode:
    """The metadata files of one zarr node, read once."""

    def __init__(self, url: str, options: StorageOptions) -> None:
        """Read the node's metadata: one to three small files."""
        self.url = url
        self.raw = b""
        self.is_array = False
        self.exists = False
        self.attributes: dict[str, Any] = {}
        for name in METADATA_NAMES:
            found = read_bytes(join(url, name), options)
            if found is not None:
                self._take(name, found, options)
                return

    def _take(self, name: str, found: bytes, options: StorageOptions) -> None:
        """Keep what one metadata file says."""
        self.exists, self.raw = True, found
        document = _json(found, join(self.url, name))
        if name == "zarr.json":
            self.is_array = document.get("node_type") == "array"
            self.attributes = document.get("attributes") or {}
            return
        self.is_array = name == ".zarray"
        attributes = read_bytes(join(self.url, ".zattrs"), options)
        if attributes is not None:
            self.raw += attributes
            self.attributes = _json(attributes, join(self.url, ".zattrs"))


def _json(data: bytes, url: str) -> dict[str, Any]:
    """Parse a metadata file."""
    try:
        document = json.loads(data)
    except ValueError as error:
        raise VolumeFormatError(f"{url} is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise VolumeFormatError(f"{url} holds a {type(document).__name__}; zarr metadata is an object")
    return document
