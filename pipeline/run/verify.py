"""`sam4em verify`: is what the journal says is written there, whole, and all of it?

1. every task of every stage is done                      else TaskFailed
2. the write units on record cover every output array     else CorruptData
3. every unit is read again and compared                  else CorruptData, and its task is to be done again
4. the outputs are marked complete
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from pipeline.errors import CorruptData, TaskFailed
from pipeline.ledger import (
    DoneMap,
    Journal,
    Lease,
    ObjectStore,
    TaskRecord,
    UnitSum,
    read_state,
    write_state,
)
from pipeline.run.places import Places
from pipeline.run.stream import StageSpec
from pipeline.telemetry import Progressed, Reporter, StageProgress

# Readers wait for the store most of the time.
NUM_READERS: Final = 8
TASKS_AHEAD: Final = 4 * NUM_READERS
_LISTED_PROBLEMS: Final = 20


@dataclass
class VerifyReport:
    """What was looked at."""

    num_tasks: int = 0
    """Tasks whose units were read again."""
    num_units: dict[str, int] = field(default_factory=dict)
    """Units on record, per output array."""
    problems: list[str] = field(default_factory=list)
    """The first ones found."""
    num_problems: int = 0
    """How many were found."""

    def add_problem(self, text: str) -> None:
        """Take note of one problem."""
        self.num_problems += 1
        if len(self.problems) < _LISTED_PROBLEMS:
            self.problems.append(text)


def verify_run(
    store: ObjectStore,
    specs: Sequence[StageSpec],
    places: Places,
    reporter: Reporter,
    *,
    removed: Collection[str] = (),
) -> VerifyReport:
    """Read everything again and compare; marks the outputs complete when all is well.

    Args:
        store: the run directory.
        specs: the stages; those that write output units are known by their records.
        places: where the outputs are.
        reporter: shows progress.
        removed: stages whose results are no longer there; where a later task is damaged, all of theirs are to be done
            again.

    Returns:
        What was looked at; no problems in it.

    Raises:
        TaskFailed: the run has not done everything yet.
        CorruptData: units are missing or damaged; their tasks are to be done again by the same command.
        RunLocked: a driver is at work.
    """
    with Lease(store) as lease, reporter:
        journal = Journal(store, {spec.name: spec.num_tasks for spec in specs})
        journal.replay()
        _check_all_done(journal)
        report = VerifyReport()
        lost: dict[str, DoneMap] = {}
        for spec in specs:
            lease.check()
            lost[spec.name] = _verify_stage(journal, spec, places, report, reporter)
        _check_coverage(report, places)
        _take_back(journal, specs, lost, removed)
        journal.flush(lease.is_mine)
        _conclude(store, places, report)
        return report


def _check_all_done(journal: Journal) -> None:
    missing = {
        name: stage.done.num_tasks - len(stage.done) for name, stage in journal.stages.items() if not stage.done.is_full
    }
    if missing:
        listed = ", ".join(f"{count} of {name}" for name, count in missing.items())
        raise TaskFailed(f"verifying the run: tasks are not done yet: {listed}; run the same command again first")


def _verify_stage(
    journal: Journal, spec: StageSpec, places: Places, report: VerifyReport, reporter: Reporter
) -> DoneMap:
    """Check the units of one stage; gives the tasks that must be done again."""
    lost = DoneMap(spec.num_tasks)
    outputs = places.num_units()
    checked = _checked(journal.stages[spec.name].latest_records(), places, outputs)
    for num_seen, (record, problems) in enumerate(checked, start=1):
        report.num_tasks += bool(record.units)
        for unit in record.units:
            report.num_units[unit.volume] = report.num_units.get(unit.volume, 0) + 1
        for problem in problems:
            report.add_problem(f"{spec.name}-{record.index}: {problem}")
        if problems:
            lost.add(record.index)
        progress = StageProgress(spec.num_tasks, num_seen, len(lost))
        reporter.update(Progressed({f"verify {spec.name}": progress}))
    return lost


def _checked(
    records: Iterator[TaskRecord], places: Places, outputs: Mapping[str, int | None]
) -> Iterator[tuple[TaskRecord, list[str]]]:
    """Check the output units of each record, several at a time; gives each record with what is wrong with it."""
    with ThreadPoolExecutor(NUM_READERS, thread_name_prefix="verify") as pool:
        waiting: deque[tuple[TaskRecord, list[Future[str | None]]]] = deque()
        for record in records:
            units = [unit for unit in record.units if unit.volume in outputs]
            waiting.append((record, [pool.submit(_check_unit, places, unit) for unit in units]))
            if len(waiting) >= TASKS_AHEAD:
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())


def _settled(record: TaskRecord, checks: list[Future[str | None]]) -> tuple[TaskRecord, list[str]]:
    return record, [problem for problem in (check.result() for check in checks) if problem is not None]


def _check_unit(places: Places, unit: UnitSum) -> str | None:
    try:
        places.check_unit(unit)
    except CorruptData as error:
        return str(error)
    return None


def _check_coverage(report: VerifyReport, places: Places) -> None:
    for volume, wanted in places.num_units().items():
        found = report.num_units.get(volume, 0)
        if wanted is not None and found != wanted:
            report.add_problem(f"output array {volume}: {found} write units on record, {wanted} in its grid")


def _take_back(
    journal: Journal, specs: Sequence[StageSpec], lost: dict[str, DoneMap], removed: Collection[str]
) -> None:
    """Put damaged tasks back to do, and the later ones that may have read what was damaged."""
    if not any(lost.values()):
        return
    for spec in specs:
        damaged = lost[spec.name]
        for index in range(spec.num_tasks):
            if (
                index in damaged
                or spec.name in removed
                or any(need.index in lost[need.stage] for need in spec.needs(index))
            ):
                damaged.add(index)
                journal.add(spec.name, TaskRecord(index, "redo"))


def _conclude(store: ObjectStore, places: Places, report: VerifyReport) -> None:
    state = read_state(store)
    is_whole = report.num_problems == 0
    state.complete, state.verified = is_whole, is_whole
    places.mark(complete=is_whole)
    write_state(store, state)
    if is_whole:
        return
    lines = list(report.problems)
    if report.num_problems > len(lines):
        lines.append(f"... and {report.num_problems - len(lines)} more")
    raise CorruptData(
        f"verifying the run: {report.num_problems} write units are not what the journal says; their tasks are to "
        f"be done again by the same command as before\n  " + "\n  ".join(lines)
    )
