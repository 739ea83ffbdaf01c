"""The run manifest: everything that decides a run's result, written once when the run begins.

A resumed run must agree with it in every field of `RunManifest.identity`. Library versions are recorded beside
it: another version is told, and marks the run as not reproducible to the bit, but does not stop it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pipeline.errors import CorruptData, ManifestMismatch
from pipeline.ledger.objects import ObjectStore, encode_document, read_document

MANIFEST_KEY: Final = "manifest.json"
STATE_KEY: Final = "state.json"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True)
class RunManifest:
    """What a run is, and where it puts things."""

    config: dict[str, Any]
    """The sections of the resolved config that change the result."""
    segmenter: dict[str, Any]
    """Identity of the segmenter: name, SHA-256 of its weights, digest of its settings."""
    image: dict[str, Any]
    """Fingerprint of the image: address, shape, dtype, voxel size, what tells another version of it."""
    grids: dict[str, Any]
    """Shapes of the block grid and of every write-unit grid."""
    num_tasks: dict[str, int]
    """Tasks of every stage, in order."""
    grey_range: tuple[float, float] | None
    """Grey values mapped to 0 and 1, from the one pass over the volume; None: not needed."""
    result_version: int
    """Version of the algorithms; raised whenever the same config would give other voxels."""
    outputs: tuple[dict[str, Any], ...] = ()
    """Every place that this run creates: `url`, `kind` and what deleting takes. A restart deletes these alone."""
    restitched_from: dict[str, Any] | None = None
    """The run whose labels this one stitches again: `run_url`, its `digest`, and the `orders` of the user."""
    packages: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries."""
    format_version: int = FORMAT_VERSION
    """Version of the run directory's layout."""

    @property
    def identity(self) -> dict[str, Any]:
        """The fields in which a resumed run must agree, as JSON has them."""
        fields = asdict(self)
        del fields["packages"]
        return json.loads(json.dumps(fields))

    @property
    def digest(self) -> str:
        """SHA-256 of the identity: the name of this run's result."""
        canonical = json.dumps(self.identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


@dataclass
class RunState:
    """What changes while a run goes on; written by the holder of the lease only."""

    complete: bool = False
    """Every task of every stage is done."""
    verified: bool = False
    """`sam4em verify` has found everything in place."""
    cleaned: bool = False
    """The intermediates are gone."""
    reasons_not_bit_reproducible: list[str] = field(default_factory=list)
    """Why another run may give other bytes; empty: it would give the same."""


def flatten(document: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for every leaf; an empty mapping or list is a leaf."""
    if isinstance(document, Mapping) and document:
        for key in sorted(document):
            yield from flatten(document[key], f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(document, list | tuple) and document:
        for number, item in enumerate(document):
            yield from flatten(item, f"{prefix}.{number}")
    else:
        yield prefix, document


def check_same(old: RunManifest, new: RunManifest) -> None:
    """Refuse to go on with a run that was begun with other settings.

    Raises:
        ManifestMismatch: names the first field that differs, with both values.
    """
    before, now = dict(flatten(old.identity)), dict(flatten(new.identity))
    missing = object()
    for name in sorted(before.keys() | now.keys()):
        first, second = before.get(name, missing), now.get(name, missing)
        if first == second:
            continue
        was = "absent" if first is missing else repr(first)
        is_now = "absent" if second is missing else repr(second)
        raise ManifestMismatch(
            f"resuming the run: {name} was {was} when it began and is {is_now} now; give the old value, "
            f"another output, or --restart to delete what was made and begin again"
        )


def changed_packages(old: RunManifest, new: RunManifest) -> list[str]:
    """Tell which libraries have another version than when the run began."""
    names = sorted(old.packages.keys() | new.packages.keys())
    return [
        f"{name} was {old.packages.get(name, 'absent')}, is {new.packages.get(name, 'absent')}"
        for name in names
        if old.packages.get(name) != new.packages.get(name)
    ]


def read_manifest(store: ObjectStore) -> RunManifest | None:
    """Read the manifest, or give None where no run has begun.

    Raises:
        CorruptData: it is damaged.
        ManifestMismatch: its layout is of another version of sam4em.
    """
    document = read_document(store, MANIFEST_KEY)
    if document is None:
        return None
    if document.get("format_version") != FORMAT_VERSION:
        raise ManifestMismatch(
            f"reading {MANIFEST_KEY}: format_version is {document.get('format_version')!r}, this sam4em reads "
            f"{FORMAT_VERSION}; use the version that began the run, or remove the run directory and its outputs by hand"
        )
    document.pop("digest", None)
    grey_range = document.pop("grey_range", None)
    outputs = document.pop("outputs", [])
    try:
        return RunManifest(
            **document,
            grey_range=None if grey_range is None else (grey_range[0], grey_range[1]),
            outputs=tuple(outputs),
        )
    except TypeError as error:
        raise CorruptData(f"reading {MANIFEST_KEY}: {error}") from error


def write_manifest(store: ObjectStore, manifest: RunManifest) -> RunManifest:
    """Write the manifest unless there is one; gives the one that is there."""
    document = {**asdict(manifest), "digest": manifest.digest}
    if store.put_if_absent(MANIFEST_KEY, encode_document(document)):
        return manifest
    existing = read_manifest(store)
    return manifest if existing is None else existing


def read_state(store: ObjectStore) -> RunState:
    """Read what has become of the run."""
    document = read_document(store, STATE_KEY)
    return RunState() if document is None else RunState(**document)


def write_state(store: ObjectStore, state: RunState) -> None:
    """Record what has become of the run."""
    store.put(STATE_KEY, encode_document(asdict(state)))
