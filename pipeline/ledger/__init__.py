"""The ledger: what a run is (manifest), what of it is done (journal), and who drives it (lease)."""

from pipeline.ledger.done_map import DoneMap
from pipeline.ledger.journal import Journal, StageJournal
from pipeline.ledger.lease import Lease, LeaseRecord, current_holder, is_gone
from pipeline.ledger.manifest import (
    RunManifest,
    RunState,
    changed_packages,
    check_same,
    read_manifest,
    read_state,
    write_manifest,
    write_state,
)
from pipeline.ledger.objects import ObjectStore, encode_document, read_document, read_object
from pipeline.ledger.record import TaskRecord, UnitSum

__all__ = [
    "DoneMap",
    "Journal",
    "Lease",
    "LeaseRecord",
    "ObjectStore",
    "RunManifest",
    "RunState",
    "StageJournal",
    "TaskRecord",
    "UnitSum",
    "changed_packages",
    "check_same",
    "current_holder",
    "encode_document",
    "is_gone",
    "read_document",
    "read_manifest",
    "read_object",
    "read_state",
    "write_manifest",
    "write_state",
]
