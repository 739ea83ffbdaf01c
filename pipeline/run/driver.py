"""One call of the driver: lease -> manifest -> journal -> tasks -> state and summary.

1. take the lease                  another driver: RunLocked
2. create or compare the manifest  other settings: ManifestMismatch
3. replay the journal              nothing missing: done, no worker is started; what was lost is put back to do
4. create the outputs              marked incomplete until `verify` has passed
5. carry out what is missing
6. record what became of it        blocks missing: TaskFailed with their list
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline import errors
from pipeline.errors import ManifestMismatch, Sam4emError, TaskFailed, WorldError
from pipeline.ledger import (
    Journal,
    Lease,
    ObjectStore,
    RunManifest,
    RunState,
    TaskRecord,
    changed_packages,
    check_same,
    encode_document,
    read_manifest,
    read_state,
    write_manifest,
    write_state,
)
from pipeline.ledger.manifest import MANIFEST_KEY, STATE_KEY
from pipeline.run.causes import cause_of, count_causes
from pipeline.run.completion import Executor, StageSet
from pipeline.run.loop import Tally, TaskLoop
from pipeline.run.places import Places
from pipeline.run.progress import PROGRESS_KEY, SUMMARY_KEY, ProgressNotes
from pipeline.run.stream import StageCounts, StageSpec
from pipeline.run.summary import RunSummary, summarize, write_summary
from pipeline.run.timeline import TIMELINE_KEY
from pipeline.telemetry import Reporter

CONFIG_KEY: Final = "config.json"
EXIT_INTERRUPTED: Final = 130
_LISTED_FAILURES: Final = 20
# As `IntermediateLost` ends; errors stand in the journal as text.
_LOST: Final = re.compile(r"^IntermediateLost: .*\[made by ([a-z0-9-]+)-(\d+)\]$", re.DOTALL)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What is to be driven."""

    store: ObjectStore
    """The run directory."""
    manifest: RunManifest
    """What decides the result."""
    stages: StageSet
    """What is to be done."""
    places: Places
    """Where it is written."""
    retries: int = 3
    """More tries of a task whose error may pass."""
    max_failed_tasks: int = 1000
    """The run stops when more tasks have failed for good."""
    config: dict[str, Any] = field(default_factory=dict)
    """The resolved config, written beside the manifest for people to read."""


def drive(
    run: Run,
    open_executor: Callable[[], AbstractContextManager[Executor]],
    *,
    reporter: Reporter,
    should_stop: Callable[[], bool] = lambda: False,
    restart: bool = False,
) -> RunSummary:
    """Do what is missing of a run.

    Args:
        run: what is to be driven.
        open_executor: starts the workers; not called where nothing is missing.
        reporter: shows progress.
        should_stop: asked between steps; a stop leaves a run that the same call goes on with.
        restart: first delete what an earlier run has made here.

    Returns:
        What it cost; its `status` is `complete`, `already complete` or `interrupted`.

    Raises:
        RunLocked: another driver holds the run.
        ManifestMismatch: the run was begun with other settings.
        TaskFailed: blocks are missing after all retries.
        WorldError: they are, and all for the same reason in a store: damaged data, a full or read-only disk.
        SchedulerUnavailable: the scheduler is not there, or went away.
    """
    with Lease(run.store) as lease:
        if restart:
            delete_run(run.store, run.places)
        state = _begin(run)
        specs = list(run.stages.specs())
        journal = Journal(run.store, {spec.name: spec.num_tasks for spec in specs})
        log.info("%d records in the journal", journal.replay())
        _note_irreproducible(state, journal)
        lost = take_back_lost(journal)
        if journal.is_complete:
            _record_completion(run, state)
            return summarize("already complete", _settled_counts(specs), Tally())
        if state.cleaned:
            raise ManifestMismatch(
                "resuming the run: blocks are missing, but `sam4em clean` has removed what they are made from; "
                "give --restart to begin again"
            )
        run.stages.create()
        run.places.mark(complete=False)
        write_state(run.store, RunState(reasons_not_bit_reproducible=state.reasons_not_bit_reproducible))
        with reporter, open_executor() as executor:
            tally, notes = Tally(), ProgressNotes(run.store, reporter)
            is_settled = True
            try:
                for part in _rounds(specs, lost):
                    loop = TaskLoop(
                        part,
                        journal,
                        lease,
                        executor,
                        retries=run.retries,
                        max_failed_tasks=run.max_failed_tasks,
                        on_change=notes,
                        tally=tally,
                    )
                    is_settled = is_settled and loop.run(should_stop)
            finally:
                notes.write(loop.counts, tally)
                _note_irreproducible(state, journal)
                write_state(run.store, state)
        return _end(run, state, journal, loop, is_settled=is_settled)


def _rounds(specs: Sequence[StageSpec], lost: set[str]) -> list[list[StageSpec]]:
    """What was lost is made first, up to the last stage that lost something; those that need it may be ready."""
    last = max((number for number, spec in enumerate(specs) if spec.name in lost), default=-1)
    return [list(specs[: last + 1]), list(specs)] if lost else [list(specs)]


def delete_run(store: ObjectStore, places: Places) -> None:
    """Delete what the manifest of an earlier run lists, and its ledger; the caller holds the lease.

    The journal goes first and the manifest last: a deletion that is cut short leaves a run that does again
    what is missing, or is deleted by the next `--restart`.
    """
    manifest = read_manifest(store)
    if manifest is None:
        return
    journal = Journal(store, manifest.num_tasks)
    journal.replay()
    for stage in journal.stages.values():
        stage.delete()
    places.delete_outputs(manifest.outputs)
    for key in (STATE_KEY, PROGRESS_KEY, TIMELINE_KEY, SUMMARY_KEY, CONFIG_KEY, MANIFEST_KEY):
        store.delete(key)


def take_back_lost(journal: Journal) -> set[str]:
    """Put tasks back to do whose result was gone when another task needed it; give their stages."""
    stages = set()
    errors_found = [error for stage in journal.stages.values() for error in stage.failed.values()]
    for name, index in {found.groups() for error in errors_found if (found := _LOST.search(error))}:
        if name in journal.stages and int(index) in journal.stages[name].done:
            log.warning("%s-%s is done again: what it made is gone", name, index)
            journal.add(name, TaskRecord(int(index), "redo"))
            stages.add(name)
    return stages


def _begin(run: Run) -> RunState:
    """Create or compare the manifest; gives what became of the run so far."""
    begun = write_manifest(run.store, run.manifest)
    check_same(begun, run.manifest)
    run.store.put(CONFIG_KEY, encode_document(run.config))
    state = read_state(run.store)
    changed = changed_packages(begun, run.manifest)
    if changed:
        reason = "library versions changed: " + "; ".join(changed)
        log.warning("%s; the result may differ in its last bits", reason)
        _add_reason(state, reason)
    return state


def _end(run: Run, state: RunState, journal: Journal, loop: TaskLoop, *, is_settled: bool) -> RunSummary:
    status = "interrupted" if not is_settled else "complete" if journal.is_complete else "failed"
    summary = summarize(status, loop.counts, loop.tally)
    write_summary(run.store, summary)
    if status == "complete":
        _record_completion(run, state)
    if status == "failed":
        raise common_cause(journal)(list_failures(journal, loop.counts))
    return summary


def common_cause(journal: Journal) -> type[Sam4emError]:
    """Give the error that says why a run failed: that of its blocks where they share one, and the world is to blame."""
    kinds = {error.partition(":")[0] for stage in journal.stages.values() for error in stage.failed.values()}
    shared = getattr(errors, kinds.pop(), None) if len(kinds) == 1 else None
    return shared if isinstance(shared, type) and issubclass(shared, WorldError) else TaskFailed


def list_failures(journal: Journal, counts: dict[str, StageCounts]) -> str:
    """Write which blocks are missing and why; the first ones, and how many more."""
    failures = [
        f"{name}-{index} [{cause_of(error)}] {error}"
        for name, stage in journal.stages.items()
        for index, error in sorted(stage.failed.items())
    ]
    causes = count_causes(error for stage in journal.stages.values() for error in stage.failed.values())
    by_cause = ", ".join(f"{count} {cause}" for cause, count in causes.items())
    blocked = sum(count.blocked for count in counts.values())
    lines = failures[:_LISTED_FAILURES]
    if len(failures) > len(lines):
        lines.append(f"... and {len(failures) - len(lines)} more (`sam4em status` lists them)")
    return (
        f"running tasks: {len(failures)} failed for good ({by_cause}) and {blocked} that need them were not begun; the "
        f"output is incomplete. The same command tries them again.\n  " + "\n  ".join(lines)
    )


def _record_completion(run: Run, state: RunState) -> None:
    if not state.complete:
        state.complete = True
        write_state(run.store, state)


def _settled_counts(specs: Sequence[StageSpec]) -> dict[str, StageCounts]:
    return {spec.name: StageCounts(spec.num_tasks, spec.num_tasks, 0, 0, 0) for spec in specs}


def _note_irreproducible(state: RunState, journal: Journal) -> None:
    for name, stage in journal.stages.items():
        for remark in sorted(stage.remarks):
            _add_reason(state, f"{name}: blocks were computed with {remark}")


def _add_reason(state: RunState, reason: str) -> None:
    if reason not in state.reasons_not_bit_reproducible:
        state.reasons_not_bit_reproducible.append(reason)
