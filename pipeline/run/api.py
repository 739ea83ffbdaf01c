"""What the commands call: one function per command, plain values out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.config import RunConfig, read_config
from pipeline.config.read import parse_config
from pipeline.config.schema import MeshSection, PriceSection
from pipeline.errors import ConfigError, VolumeNotFound, WorkError, WorldError
from pipeline.ledger import check_same, read_manifest, read_state
from pipeline.run.clean import clean_run
from pipeline.run.compare import evaluate_stored
from pipeline.run.driver import EXIT_INTERRUPTED, Run
from pipeline.run.estimate import count_figures, count_files
from pipeline.run.launch import drive_prepared, open_run, refuse_own_memory, run_directory
from pipeline.run.launch import run_config as launch
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import PreparedRun, prepare_run, storage_options
from pipeline.run.probe import probe_run
from pipeline.run.restitch import begin_restitch, count_joined, reopen_restitch
from pipeline.run.show import config_of_output, run_url_of_output, scene_of_output
from pipeline.run.signals import stop_on_signals
from pipeline.run.status import RunStatus, read_status
from pipeline.run.verify import verify_run
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan
from pipeline.storage import ObjectStore, StorageOptions
from pipeline.telemetry import format_duration, make_reporter, set_up_logging
from pipeline.viewer.scene import LayerKind, Scene

LAYER_KINDS: Final[dict[str, LayerKind]] = {
    "image": "image",
    "labels": "segmentation",
    "probability": "probability",
    "distance": "distance",
}
"""How a further volume can be drawn."""
_CONFIG_SUFFIXES: Final = (".yaml", ".yml")


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
    try:
        with stop_on_signals() as should_stop:
            summary = launch(config, reporter=make_reporter(), should_stop=should_stop, restart=restart)
    except (WorldError, WorkError):
        _leave_report(config, run_url_of(config))
        raise
    _leave_report(config, run_url_of(config))
    if summary.status == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)
    figures = dataclasses.asdict(summary)
    if config.mesh is not None:
        figures["meshes"] = _make_meshes(config, run_url_of(config), config.mesh, restart=False)
    return figures


def mesh_objects(
    run: str, *, settings: Mapping[str, Any], workers: int | None = None, restart: bool = False
) -> dict[str, Any]:
    """Make the meshes of a finished run, or go on with them; shows progress on stderr.

    Args:
        run: config file or output.
        settings: keys of the config's `mesh` section that stand in for its own; None is passed over.
        workers: worker processes; None: as the config says.
        restart: first delete the meshes that were made.

    Returns:
        What was made, by name.

    Raises:
        Sam4emError: see `pipeline.run.mesh.mesh_run`.
        SystemExit: Ctrl-C, after everything in flight was recorded; code 130.
    """
    config = _with_workers(_config(run), workers)
    set_up_logging(config.logging.level)
    given = config.mesh.model_dump() if config.mesh is not None else {}
    wanted = {name: value for name, value in settings.items() if value is not None}
    section = parse_config({**given, **wanted}, MeshSection, "command line")
    url = run_url_of(config) if _is_config(run) else run_url_of_output(run, storage_options(config.storage))
    return _make_meshes(config, url, section, restart=restart)


def _make_meshes(config: RunConfig, run_url: str, section: MeshSection, *, restart: bool) -> dict[str, Any]:
    # Meshing and cloud-volume take a second to import: only where they are needed.
    from pipeline.run.mesh import mesh_run  # noqa: PLC0415

    with stop_on_signals() as should_stop:
        summary, urls = mesh_run(
            config, run_url, section, reporter=make_reporter(), should_stop=should_stop, restart=restart
        )
    if summary.status == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)
    # Without a task in this call, such as when all is done already, there is nothing to count.
    names = ("objects", "without_surface", "triangles") if summary.status == "complete" else ()
    counts = {name: summary.counters.get(f"mesh-join.{name}", 0) for name in names}
    return {"status": summary.status, **counts, "wall_seconds": summary.wall_seconds, "written": urls}


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
    config = _with_workers(_config(run), workers)
    set_up_logging(config.logging.level)
    restitched = begin_restitch(config, run, settings, veto, output)
    refuse_own_memory(restitched.prepared.plan.config)
    with stop_on_signals() as should_stop:
        summary = drive_prepared(
            restitched.prepared, restitched.run, reporter=make_reporter(), should_stop=should_stop, restart=restart
        )
    new_config = restitched.prepared.plan.config
    _leave_report(new_config, run_url_of(new_config))
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
    """Tell where a run stands.

    Args:
        run: config file or output.

    Raises:
        VolumeNotFound: there is no run.
    """
    return describe_status(read_status(_directory(run)))


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
    """Read everything that a run wrote again, and mark its outputs complete.

    Args:
        run: config file or output.

    Raises:
        TaskFailed: the run is not done.
        CorruptData: units are missing or damaged.
    """
    config = _config(run)
    opened = _opened(config)
    start = time.monotonic()
    report = verify_run(opened.store, opened.stages.specs(), opened.places, make_reporter())
    return {
        "verified": True,
        "tasks": report.num_tasks,
        "write_units": report.num_units,
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

    config = _config(run)
    plan = _opened_plan(config)
    options = storage_options(config.storage)
    return report_seams(plan, TaskContext(plan, options=options), run_directory(config, plan.run_url), worst)


def clean_report(run: str) -> dict[str, Any]:
    """Remove the intermediates of a verified run.

    Raises:
        ConfigError: it was not verified, or its config keeps them.
    """
    config = _config(run)
    if config.storage.keep_intermediates:
        raise ConfigError(f"cleaning {run}: storage.keep_intermediates is true; take it out to remove them")
    opened = _opened(config)
    clean_run(opened.store, opened.places)
    return {"cleaned": True}


def view_run(
    run: str,
    *,
    port: int | None,
    bind: str = "127.0.0.1",
    truth: str | None,
    extra: Sequence[tuple[str, str]] = (),
    screenshot: Path | None,
    on_url: Callable[[str], None],
    on_note: Callable[[str], None] = lambda text: None,
) -> None:
    """Show a run in Neuroglancer until Ctrl-C, or take one picture of it.

    Args:
        run: config file or output.
        port: the one port used; None: any free one.
        bind: address to listen on.
        truth: one more label volume.
        extra: further volumes: how each is drawn (see `LAYER_KINDS`), and where it is.
        screenshot: PNG to write; None: serve.
        on_url: told the address.
        on_note: told what a user should know about what is shown.

    Raises:
        VolumeNotFound: there is no run.
        UserError: the port is taken, or no browser is there.
    """
    # Neuroglancer takes a second to import: only where it is needed.
    from pipeline.viewer.screenshot import take_screenshot  # noqa: PLC0415
    from pipeline.viewer.server import serve  # noqa: PLC0415

    scene = _scene(run, truth, extra, on_note)
    with serve(scene, port=port, bind=bind) as server:
        if screenshot is not None:
            on_url(str(take_screenshot(server, screenshot)))
            return
        on_url(server.url)
        try:
            server.wait()
        except KeyboardInterrupt:
            return


def link_run(
    run: str,
    *,
    truth: str | None,
    extra: Sequence[tuple[str, str]] = (),
    page: str | None,
    on_note: Callable[[str], None],
) -> tuple[str, str]:
    """Write a run as a link to a public Neuroglancer, and the state behind it as JSON.

    Raises:
        VolumeNotFound: there is no run.
        UserError: a volume lies where other people's browsers cannot read it.
    """
    from pipeline.viewer.link import PUBLIC_PAGE, make_link  # noqa: PLC0415

    return make_link(_scene(run, truth, extra, on_note, is_public=True), page=page or PUBLIC_PAGE)


def _scene(
    run: str,
    truth: str | None,
    extra: Sequence[tuple[str, str]],
    on_note: Callable[[str], None],
    *,
    is_public: bool = False,
) -> Scene:
    config = _config(run)
    output = config.outputs[0].url if _is_config(run) else run
    kinds = [(LAYER_KINDS[kind], url) for kind, url in extra]
    scene = scene_of_output(output, truth=truth, storage=config.storage, extra=kinds, is_public=is_public)
    if not read_state(_directory(run)).complete:
        on_note("the run is not complete: what is missing is shown as background, or not yet there")
    return scene


def report_run(
    run: str,
    *,
    truth: str | None = None,
    roi: str | None = None,
    on_block: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> str:
    """Write the report of a run again, with scores where a truth is given; gives where it is.

    Args:
        run: config file or output.
        truth: true labels to score the first output against.
        roi: region in voxels of the truth.
        on_block: told how far scoring is; see `evaluate_stored`.

    Raises:
        VolumeNotFound: there is no run, or no truth.
        UserError: truth and output do not fit.
    """
    from pipeline.run.report import write_run_report  # noqa: PLC0415

    config, store = _config(run), _directory(run)
    scores = None
    if truth is not None:
        output = config.outputs[0].url if _is_config(run) else run
        found = evaluate_stored(output, truth, roi=roi, storage=config.storage, on_block=on_block)
        scores = {"truth": truth, **found.as_dict()}
    return write_run_report(store, storage_options(config.storage), scores)


def _leave_report(config: RunConfig, run_url: str) -> None:
    # Pillow and parquet take a moment to import: only where they are needed.
    from pipeline.run.report import leave_report  # noqa: PLC0415

    store = run_directory(config, run_url)
    if read_manifest(store) is not None:
        leave_report(store, storage_options(config.storage))


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


def _with_workers(config: RunConfig, workers: int | None) -> RunConfig:
    if workers is None:
        return config
    return config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": workers})})


def _is_config(run: str) -> bool:
    return run.endswith(_CONFIG_SUFFIXES)


def _config(run: str) -> RunConfig:
    return read_config(run) if _is_config(run) else config_of_output(run, StorageOptions())


def _directory(run: str) -> ObjectStore:
    if _is_config(run):
        config = read_config(run)
        return run_directory(config, run_url_of(config))
    return run_directory(config_of_output(run, StorageOptions()), run_url_of_output(run, StorageOptions()))
