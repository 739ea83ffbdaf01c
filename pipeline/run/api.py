"""What the commands call: one function per command, plain values out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.config.schema import PriceSection
from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.ledger import check_same, read_manifest
from pipeline.run.clean import clean_run
from pipeline.run.driver import EXIT_INTERRUPTED, Run
from pipeline.run.estimate import count_figures, count_files
from pipeline.run.finding import find_config, find_directory, with_workers
from pipeline.run.launch import drive_prepared, open_run, refuse_own_memory, run_directory
from pipeline.run.launch import run_config as launch
from pipeline.run.looks import leave_report_of, leaving_report
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import PreparedRun, prepare_run, storage_options
from pipeline.run.probe import probe_run
from pipeline.run.restitch import begin_restitch, count_joined, reopen_restitch
from pipeline.run.shape_command import check_configured_shapes, make_configured_shapes, verify_shapes
from pipeline.run.signals import stop_on_signals
from pipeline.run.status import RunStatus, read_status_with_shapes
from pipeline.run.verify import verify_run
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import SHAPE_RUN_FOLDERS
from pipeline.stages.plan import RunPlan
from pipeline.telemetry import format_duration, make_reporter, set_up_logging


def run_config(config: RunConfig, *, restart: bool = False) -> dict[str, Any]:
    """Run a config from the beginning, or go on with it; shows progress on stderr.

    Args:
        config: the whole run.
        restart: first delete what an earlier run has made here.

    Returns:
        The run's summary, by field; `status` is `complete`, `already complete` or `interrupted`.

    Raises:
        Sam4emError: see `pipeline.run.launch.run_config`.
        SystemExit: Ctrl-C, after everything in flight was recorded; code 130.
    """
    set_up_logging(config.logging.level)
    check_configured_shapes(config)
    with leaving_report(config), stop_on_signals() as should_stop:
        summary = launch(config, reporter=make_reporter(), should_stop=should_stop, restart=restart)
    if summary.status == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)
    figures = dataclasses.asdict(summary)
    return figures | make_configured_shapes(config, run_url_of(config))


def restitch_run(
    run: str,
    *,
    settings: Sequence[str] = (),
    veto: Path | None = None,
    output: str | None = None,
    workers: int | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Stitch the labels of a finished run again, or go on with it; shows progress on stderr.

    Args:
        run: config file or output of that run.
        settings: `KEY=VALUE` or `CLASS.KEY=VALUE`; see `pipeline.run.restitch.SETTINGS`.
        veto: file of orders; see `pipeline.run.orders`.
        output: where to write; None: beside the run's first output, named after the changes.
        workers: worker processes; None: as the config says.
        restart: first delete what an earlier call has made there.

    Returns:
        The new run's summary, by field, with its `output` and what became of the orders.

    Raises:
        Sam4emError: see `pipeline.run.restitch.begin_restitch`.
        SystemExit: Ctrl-C, after everything in flight was recorded; code 130.
    """
    config = with_workers(find_config(run), workers)
    set_up_logging(config.logging.level)
    restitched = begin_restitch(config, run, settings, veto, output)
    refuse_own_memory(restitched.prepared.plan.config)
    with stop_on_signals() as should_stop:
        summary = drive_prepared(
            restitched.prepared, restitched.run, reporter=make_reporter(), should_stop=should_stop, restart=restart
        )
    new_config = restitched.prepared.plan.config
    leave_report_of(new_config, run_url_of(new_config))
    if summary.status == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)
    ordered = {
        "vetoed_pairs": int((~restitched.book.merge).sum()),
        "forced_pairs": int(restitched.book.merge.sum()),
        "vetoed_pairs_that_others_join": count_joined(restitched),
    }
    new_output = restitched.prepared.plan.config.outputs[0].url
    return {"output": new_output, **(ordered if veto is not None else {}), **dataclasses.asdict(summary)}


def plan_report(config: RunConfig, *, num_probes: int = 1, prices: Sequence[str] = ()) -> dict[str, Any]:
    """Plan a config, count what it costs, and measure some of its blocks.

    Args:
        config: the whole run.
        num_probes: blocks that are really carried out, on this machine; 0: none.
        prices: `KEY=NUMBER`, over those of the config's section `prices`.

    Raises:
        ConfigError: a price that there is not, or that is no number.
        Sam4emError: the plan cannot be made, or the block fails.
    """
    set_up_logging(config.logging.level)
    prepared = prepare_run(with_prices(config, prices))
    measured = probe_run(prepared, num_probes) if num_probes else {}
    return {**count_figures(prepared), **count_files(prepared.plan), **measured}


def with_prices(config: RunConfig, prices: Sequence[str]) -> RunConfig:
    """Set prices over those of a config.

    Raises:
        ConfigError: a price that there is not, or that is no number.
    """
    given = dict(text.partition("=")[::2] for text in prices)
    section = parse_config({**config.prices.model_dump(), **given}, PriceSection, "--price")
    return config.model_copy(update={"prices": section})


def status_report(run: str) -> dict[str, Any]:
    """Tell where a run stands, and its meshes and skeletons where they were begun.

    Args:
        run: config file or output.

    Raises:
        VolumeNotFound: there is no run.
    """
    directory = find_directory(run)
    return describe_status(read_status_with_shapes(directory, [directory.folder(name) for name in SHAPE_RUN_FOLDERS]))


def describe_status(status: RunStatus) -> dict[str, Any]:
    """Turn a status into names and plain values."""
    left = status.seconds_left
    return {
        "complete": status.state.complete,
        "verified": status.state.verified,
        "cleaned": status.state.cleaned,
        "driver": status.holder or (f"none; {status.dead_holder} went away" if status.dead_holder else "none"),
        "time_left": None if left is None else format_duration(left),
        "busy_fraction_by_worker": status.busy_fraction_by_worker,
        "stages": {
            stage.name: {
                "total": stage.total,
                "done": stage.done,
                "empty": stage.empty,
                "failed": len(stage.failed),
                "running": stage.running,
                "to do": stage.to_do,
                "per second": stage.tasks_per_second,
            }
            for stage in status.stages
        },
        "failed_tasks": {
            f"{stage.name}-{index}": error for stage in status.stages for index, error in sorted(stage.failed.items())
        },
        "not_bit_reproducible": status.state.reasons_not_bit_reproducible,
    }


def verify_report(run: str) -> dict[str, Any]:
    """Read everything that a run wrote again, its meshes and skeletons too, and mark its outputs complete.

    Args:
        run: config file or output.

    Raises:
        TaskFailed: the run is not done.
        CorruptData: units are missing or damaged.
    """
    config = find_config(run)
    opened = _opened(config)
    start = time.monotonic()
    report = verify_run(opened.store, opened.stages.specs(), opened.places, make_reporter())
    shapes = {kind: verify_shapes(kind, config, run_url_of(config)) for kind in SHAPE_RUN_FOLDERS}
    return {
        "verified": True,
        "tasks": report.num_tasks,
        "write_units": report.num_units,
        **{f"{kind}_files": found.num_units if found is not None else {} for kind, found in shapes.items()},
        "seconds": round(time.monotonic() - start, 1),
    }


def seam_report(run: str, *, worst: int = 8) -> dict[str, Any]:
    """Tell how far neighboring blocks of a run disagree, and draw the worst faces into its directory.

    Raises:
        VolumeNotFound: no run has begun there.
        ConfigError: the run has not come so far.
    """
    # Pillow and parquet take a moment to import: only where they are needed.
    from pipeline.run.seams import report_seams  # noqa: PLC0415

    config = find_config(run)
    plan = _opened_plan(config)
    options = storage_options(config.storage)
    return report_seams(plan, TaskContext(plan, options=options), run_directory(config, plan.run_url), worst)


def clean_report(run: str) -> dict[str, Any]:
    """Remove the intermediates of a verified run.

    Raises:
        ConfigError: it was not verified, or its config keeps them.
    """
    config = find_config(run)
    if config.storage.keep_intermediates:
        raise ConfigError(f"cleaning {run}: storage.keep_intermediates is true; take it out to remove them")
    opened = _opened(config)
    clean_run(opened.store, opened.places)
    return {"cleaned": True}


def _opened_plan(config: RunConfig) -> RunPlan:
    """Give the plan of a run that has begun; raises as `_opened`."""
    return _open(config)[0].plan


def _opened(config: RunConfig) -> Run:
    """Open a run that has begun, with the settings it was begun with; raises as `_open`."""
    return _open(config)[1]


def _open(config: RunConfig) -> tuple[PreparedRun, Run]:
    """Open a run that has begun, with the settings it was begun with.

    Raises:
        VolumeNotFound: no run has begun there.
        ManifestMismatch: it was begun with other settings.
    """
    begun = read_manifest(run_directory(config, run_url_of(config)))
    if begun is None:
        raise VolumeNotFound(f"looking for the run of {config.outputs[0].url}: no run has begun there")
    if begun.restitched_from is None:
        prepared = prepare_run(config)
        opened = open_run(prepared)
    else:
        restitched = reopen_restitch(config, begun)
        prepared, opened = restitched.prepared, restitched.run
    check_same(begun, opened.manifest)
    return prepared, opened
