"""Addresses: what a URL names, and the few file-system calls that metadata needs."""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any

import fsspec

from pipeline.errors import ConfigError
from pipeline.storage.faults import store_faults
from pipeline.storage.options import StorageOptions

SCHEMES = ("file", "s3", "gs", "https", "http", "memory")
"""URL schemes that can be read; http and https cannot be written; memory lives in one process only."""

MESH_FOLDER = "mesh"
"""Folder of meshes below a precomputed volume, and key and value in its `info`."""
SKELETON_FOLDER = "skeletons"
"""The same of skeletons."""
SHAPE_FOLDERS = (MESH_FOLDER, SKELETON_FOLDER)
"""All that a volume's objects may have beside their voxels."""


def scheme_of(url: str) -> str:
    """Give the URL's scheme; a plain path is `file`.

    Raises:
        ConfigError: the scheme is not one of `SCHEMES`.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "file"
    if scheme not in SCHEMES:
        raise ConfigError(f"{url} has scheme {scheme}://; supported are " + ", ".join(SCHEMES))
    return scheme


def local_path(url: str) -> Path | None:
    """Give the path on this machine, or None for a remote address."""
    if scheme_of(url) != "file":
        return None
    return Path(url.removeprefix("file://")).expanduser().absolute()


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return posixpath.join(url.rstrip("/"), *parts)


def parent(url: str) -> tuple[str, str] | None:
    """Split off the last path part; None where only a host or a bucket is left."""
    head, _, name = url.rstrip("/").rpartition("/")
    if not name or head.endswith(("/", ":")) or head == "":
        return None
    return head, name


def file_system(url: str, options: StorageOptions) -> tuple[Any, str]:
    """Give the fsspec file system of a URL and the path in it."""
    path = local_path(url)
    address = str(path) if path is not None else url
    with store_faults(f"opening {url}"):
        fs, inside = fsspec.core.url_to_fs(address, **options.fsspec_options(scheme_of(url)))
    return fs, str(inside)


def read_bytes(url: str, options: StorageOptions) -> bytes | None:
    """Read a small file whole; None where there is none.

    Raises:
        WorldError: the store failed otherwise.
    """
    fs, path = file_system(url, options)
    with store_faults(f"reading {url}"):
        try:
            data: bytes = fs.cat_file(path)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
    return data


def refuse_read_only_scheme(url: str) -> None:
    """Refuse addresses that cannot be written.

    Raises:
        ConfigError: http or https.
    """
    if scheme_of(url) in ("http", "https"):
        raise ConfigError(f"{url} can only be read; write to a path, s3:// or gs://")


def shape_url(volume_url: str, volume_format: str, folder: str) -> str:
    """Give the place of a volume's meshes or skeletons: inside a precomputed volume, beside a zarr."""
    url = volume_url.rstrip("/")
    return join(url, folder) if volume_format == "precomputed" else f"{url}.{folder}"
