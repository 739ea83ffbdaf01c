"""Do the workers run the same code as the driver? Path and digest of both packages, compared."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = ("pipeline", "sam4em_core")


@dataclass(frozen=True)
class CodeIdentity:
    """Which code a process would run for one package."""

    package: str
    """Name of the package."""
    path: str
    """Folder it is imported from."""
    digest: str
    """SHA-256 over names and contents of its .py files."""

    def __str__(self) -> str:
        """Write as `name at path (digest)`."""
        return f"{self.package} at {self.path} ({self.digest[:12]})"


def digest_of_folder(folder: Path) -> str:
    """Digest the .py files below a folder: their names relative to it and their contents."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py"), key=lambda found: found.relative_to(folder).as_posix()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def code_identities() -> tuple[CodeIdentity, ...]:
    """Tell which code this process runs, without importing it."""
    return tuple(_identity(package) for package in PACKAGES)


def compare_code(driver: tuple[CodeIdentity, ...], worker: tuple[CodeIdentity, ...], address: str) -> str | None:
    """Tell what differs between driver and worker, or None where the code is the same.

    Equal code in another folder is the same code: machines need not share a disk.
    """
    for ours, theirs in zip(driver, worker, strict=True):
        if ours.digest != theirs.digest:
            return (
                f"comparing code with worker {address}: the driver has {ours}, the worker has {theirs}; install "
                f"the same version in both places, and start workers with PYTHONSAFEPATH=1"
            )
    return None


def _identity(package: str) -> CodeIdentity:
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not locations:
        return CodeIdentity(package, "nowhere", "")
    folder = Path(locations[0])
    return CodeIdentity(package, str(folder), digest_of_folder(folder))
