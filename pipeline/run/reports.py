"""Files for people beside a run: scores as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.storage.faults import store_faults


def check_report_path(path: Path, option: str) -> None:
    """Refuse a file that cannot be written, before the work whose result it is to hold.

    Args:
        path: a local file.
        option: the option that named it.

    Raises:
        UserError: it is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UserError(f"{option} {path}: a folder is there; name a file")
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: the folder {path.parent} does not exist; make it first")


def write_report(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values as JSON.

    Raises:
        WorldError: the disk is full or does not allow writing.
    """
    write_text(path, json.dumps(values, indent=2))


def write_text(path: Path, text: str) -> None:
    """Write a text and a line's end.

    Raises:
        WorldError: the disk is full or does not allow writing.
    """
    with store_faults(f"writing {path}", "write"):
        path.write_text(f"{text}\n", encoding="utf-8")


def make_folder(path: Path, option: str) -> None:
    """Make a folder and those above it; one that is there stays.

    Raises:
        UserError: a file is in the way.
        WorldError: the disk is full or does not allow writing.
    """
    taken = next((part for part in (path, *path.parents) if part.exists()), path)
    if taken.exists() and not taken.is_dir():
        raise UserError(f"{option} {path}: {taken} is a file; name another folder")
    with store_faults(f"making the folder {path}", "write"):
        path.mkdir(parents=True, exist_ok=True)
