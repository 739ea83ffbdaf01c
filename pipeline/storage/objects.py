"""Small objects under one address: whole puts and gets by key, without rename, append or listing.

On a local disk a put is atomic (a temporary file, then `os.replace`); object stores put atomically by nature.
`put_if_absent` has one winner: a hard link on a local disk, `If-None-Match: *` on S3 and a generation match on
Google's store.
"""

from __future__ import annotations

import errno
import os
import re
import uuid
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import OurError, VolumeNotFound
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import file_system, join, local_path, refuse_read_only_scheme
from pipeline.storage.options import StorageOptions

_KEY = re.compile(r"[A-Za-z0-9_.+=@,:-]+(?:/[A-Za-z0-9_.+=@,:-]+)*")
_DEFAULT_OPTIONS = StorageOptions()
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class ObjectStore:
    """Bytes by key below a URL."""

    def __init__(self, url: str, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
        """Keep the address; no request is made."""
        self.url = url.rstrip("/")
        self._options = options
        self._local = local_path(url)
        self._remote: tuple[Any, str] | None = None

    def folder(self, name: str) -> ObjectStore:
        """Give what lies below one folder as a store of its own; no request is made."""
        return ObjectStore(join(self.url, name), self._options)

    def put(self, key: str, data: bytes) -> None:
        """Write an object whole; replaces what was there.

        Raises:
            WorldError: the store failed; nothing or the old object is there.
        """
        refuse_read_only_scheme(self.url)
        path = self._path(key)
        with store_faults(f"writing {join(self.url, key)}", "write"):
            if path is not None:
                _replace(path, data)
            else:
                fs, prefix = self._file_system()
                fs.pipe_file(f"{prefix}/{key}", data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write an object only where none is: among callers with different data one gets True.

        Raises:
            WorldError: the store failed.
        """
        refuse_read_only_scheme(self.url)
        path = self._path(key)
        with store_faults(f"creating {join(self.url, key)}", "write"):
            if path is not None:
                return _create(path, data)
            fs, prefix = self._file_system()
            try:
                fs.pipe_file(f"{prefix}/{key}", data, mode="create")
            except FileExistsError:
                # Ours it may be all the same: an answer that was lost on the way is asked for again by the library.
                return get_or_none(self, key) == data
            return True

    def get(self, key: str) -> bytes:
        """Read an object whole.

        Raises:
            VolumeNotFound: there is none.
        """
        path = self._path(key)
        with store_faults(f"reading {join(self.url, key)}"):
            if path is not None:
                return path.read_bytes()
            fs, prefix = self._file_system()
            data: bytes = fs.cat_file(f"{prefix}/{key}")
            return data

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading parts of it.

        Raises:
            VolumeNotFound: there is none.
        """
        path = self._path(key)
        with store_faults(f"opening {join(self.url, key)}"):
            if path is not None:
                return path.open("rb")
            fs, prefix = self._file_system()
            file: BinaryIO = fs.open(f"{prefix}/{key}", "rb")
            return file

    def exists(self, key: str) -> bool:
        """Whether an object is there; none of ours is without a byte."""
        path = self._path(key)
        with store_faults(f"looking for {join(self.url, key)}"):
            if path is not None:
                return path.is_file()
            fs, prefix = self._file_system()
            try:
                # Its first byte, since asking for an object's properties lists the folder where there is none.
                fs.cat_file(f"{prefix}/{key}", start=0, end=1)
            except FileNotFoundError:
                return False
            return True

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no fault."""
        path = self._path(key)
        with store_faults(f"removing {join(self.url, key)}", "write"):
            if path is not None:
                path.unlink(missing_ok=True)
                return
            fs, prefix = self._file_system()
            try:
                fs.rm_file(f"{prefix}/{key}")
            except FileNotFoundError:
                return

    def delete_prefix(self, prefix: str) -> None:
        """Remove everything in a folder below this store; the store's own root cannot be removed.

        Raises:
            OurError: the prefix is not a valid key.
        """
        folder = self._path(prefix)
        with store_faults(f"removing {join(self.url, prefix)}", "write"):
            if folder is not None:
                _remove_folder(folder)
                return
            fs, root = self._file_system()
            try:
                fs.rm(f"{root}/{prefix}", recursive=True)
            except FileNotFoundError:
                return

    def _path(self, key: str) -> Path | None:
        """Give the local path of a key, after checking it; None for remote stores."""
        if not _KEY.fullmatch(key) or any(part in (".", "..") for part in key.split("/")):
            raise OurError(f"object key {key!r} must be names joined by /, without . or .. and not absolute")
        return None if self._local is None else self._local / key

    def _file_system(self) -> tuple[Any, str]:
        """Open the remote file system once."""
        if self._remote is None:
            fs, path = file_system(self.url, self._options)
            self._remote = fs, path.rstrip("/")
        return self._remote


def _temporary(path: Path, data: bytes) -> Path:
    """Write data beside a path, under a name that nobody else uses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        temporary.write_bytes(data)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _replace(path: Path, data: bytes) -> None:
    """Put a file in one step."""
    temporary = _temporary(path, data)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _create(path: Path, data: bytes) -> bool:
    """Put a file in one step where none is; disks without hard links get an exclusive create."""
    temporary = _temporary(path, data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_exclusively(path, data)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create_exclusively(path: Path, data: bytes) -> bool:
    """Create with O_EXCL; a kill in between leaves a torn object, which its reader sees by its checksum."""
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        return False
    return True


def _remove_folder(folder: Path) -> None:
    """Remove a folder's files and sub-folders without following links."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    if not folder.is_dir():
        return
    for root, folders, files in os.walk(folder, topdown=False):
        for name in files:
            (Path(root) / name).unlink(missing_ok=True)
        for name in folders:
            path = Path(root) / name
            path.unlink() if path.is_symlink() else path.rmdir()
    folder.rmdir()


def get_or_none(store: ObjectStore, key: str) -> bytes | None:
    """Read an object, None where there is none.

    Raises:
        StoreUnavailable: the store did not answer.
    """
    try:
        return store.get(key)
    except VolumeNotFound:
        return None
