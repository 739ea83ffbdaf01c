"""Which file a request may read, and which of its bytes.

Rules:
    1. A request names a path relative to one registered root. Nothing outside that root is ever opened,
       whatever the path says and wherever a link points.
    2. A path that breaks the rule and a path that does not exist look the same: None.
    3. `name` is answered with `name.gz` or `name.br` where only that exists, as cloud-volume stores chunks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

# Source: cloud-files, suffixes of compressed objects.
CONTENT_ENCODINGS: Mapping[str, str] = MappingProxyType({".gz": "gzip", ".br": "br"})


@dataclass(frozen=True)
class ServedFile:
    """A file that may be sent."""

    path: Path
    """Absolute, free of links, inside its root."""
    size_bytes: int
    """Length on disk."""
    encoding: str | None
    """Value of `Content-Encoding`, or None for a file stored as is."""


class RangeNotSatisfiable(ValueError):
    """A well-formed range that holds no byte of the file."""


def find_file(root: Path, relative: str) -> ServedFile | None:
    """Find the file that a decoded request path names.

    Args:
        root: absolute folder, free of links.
        relative: path under it, percent signs already decoded, parts divided by `/`.

    Returns:
        The file, or None when it does not exist, is not a regular file or lies outside the root.
    """
    if not is_plain(relative):
        return None
    plain = _inside(root, root / relative)
    if plain is not None:
        return ServedFile(plain, plain.stat().st_size, None)
    for suffix, encoding in CONTENT_ENCODINGS.items():
        packed = _inside(root, root / f"{relative}{suffix}")
        if packed is not None:
            return ServedFile(packed, packed.stat().st_size, encoding)
    return None


def is_plain(relative: str) -> bool:
    """Whether a path names only children: no empty, `.` or `..` part, no backslash, no NUL."""
    if "\0" in relative or "\\" in relative:
        return False
    return all(part not in {"", ".", ".."} for part in relative.split("/"))


def _inside(root: Path, candidate: Path) -> Path | None:
    """Follow all links; None unless a regular file under `root` is at the end."""
    try:
        resolved = candidate.resolve(strict=True)
    except (OSError, RuntimeError):  # missing, no permission, name too long; RuntimeError: a loop of links
        return None
    return resolved if resolved.is_relative_to(root) and resolved.is_file() else None


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Turn a Range header into a half-open range of bytes.

    Args:
        header: for example `bytes=0-99`, `bytes=100-` or `bytes=-16`.
        size_bytes: length of the file.

    Returns:
        (start, stop), or None when the whole file is to be sent: no header, another unit, several ranges or a
        header that does not parse, which a server may ignore. Source: RFC 9110, section 14.2.

    Raises:
        RangeNotSatisfiable: the range begins at or after the end of the file, or asks for the last 0 bytes.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip(), flags=re.ASCII)
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if first == "":
        start, stop = max(0, size_bytes - int(last)), size_bytes
    else:
        start, stop = int(first), min(size_bytes, int(last) + 1 if last else size_bytes)
        if last and int(last) < start:
            return None
    if start >= size_bytes:
        raise RangeNotSatisfiable(f"{header!r} of {size_bytes} bytes")
    return start, stop
