"""What `sam4em mesh` and `sam4em skeleton` call, and a run whose config wants meshes or skeletons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.config.shapes import ShapeSection
from pipeline.errors import ManifestMismatch
from pipeline.ledger import check_same, read_manifest, read_state
from pipeline.run.driver import EXIT_INTERRUPTED
from pipeline.run.finding import find_config, is_config, with_workers
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import storage_options
from pipeline.run.show import run_url_of_output
from pipeline.run.signals import stop_on_signals
from pipeline.run.verify import VerifyReport, verify_run
from pipeline.storage import ObjectStore
from pipeline.telemetry import make_reporter, set_up_logging

if TYPE_CHECKING:
    from pipeline.run.shape_recipes import ShapeRecipe

# Counted by the second stage, beside its objects.
_COUNTERS: Final = ("without_surface", "triangles", "without_skeleton", "length_nm")


def shape_objects(
    kind: str, run: str, *, settings: Mapping[str, Any], workers: int | None = None, restart: bool = False
) -> dict[str, Any]:
    """Make the shapes of a finished run's objects, or go on with them; shows progress on stderr.

    Args:
        kind: `mesh` or `skeleton`.
        run: config file or output.
        settings: keys of the config's section of that name that stand in for its own; None is passed over.
        workers: worker processes; None: as the config says.
        restart: first delete the shapes that were made.

    Returns:
        What was made, by name.

    Raises:
        Sam4emError: see `pipeline.run.shape_run.shape_run`.
        SystemExit: Ctrl-C, after everything in flight was recorded; code 130.
    """
    config = with_workers(find_config(run), workers)
    set_up_logging(config.logging.level)
    configured = getattr(config, kind)
    given = configured.model_dump() if configured is not None else {}
    wanted = {name: value for name, value in settings.items() if value is not None}
    section = parse_config({**given, **wanted}, _recipe(kind).section, "command line")
    url = run_url_of(config) if is_config(run) else run_url_of_output(run, storage_options(config.storage))
    return _make_shapes(kind, config, url, section, restart=restart)


def make_configured_shapes(config: RunConfig, run_url: str) -> dict[str, dict[str, Any]]:
    """Make what a config wants of its run, and tell what was made, by name; raises as `shape_objects`."""
    return {
        _recipe(kind).plan.made: _make_shapes(kind, config, run_url, section, restart=False)
        for kind, section in _configured(config).items()
    }


def check_configured_shapes(config: RunConfig) -> None:
    """Refuse a config whose shapes cannot be made here, before hours of work.

    Raises:
        ConfigError: a package is not installed.
    """
    for kind in _configured(config):
        _recipe(kind).require()


def _configured(config: RunConfig) -> dict[str, ShapeSection]:
    sections: dict[str, ShapeSection | None] = {"mesh": config.mesh, "skeleton": config.skeleton}
    return {kind: section for kind, section in sections.items() if section is not None}


def _recipe(kind: str) -> ShapeRecipe:
    # Meshing and cloud-volume take a second to import: only where they are needed.
    from pipeline.run.shape_recipes import RECIPES  # noqa: PLC0415

    return RECIPES[kind]


def _make_shapes(kind: str, config: RunConfig, run_url: str, section: ShapeSection, *, restart: bool) -> dict[str, Any]:
    from pipeline.run.shape_run import shape_run  # noqa: PLC0415

    with stop_on_signals() as should_stop:
        summary, urls = shape_run(
            _recipe(kind),
            config,
            run_url,
            section,
            reporter=make_reporter(),
            should_stop=should_stop,
            restart=restart,
        )
    if summary.status == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)
    # Without a task in this call, such as when all is done already, there is nothing to count.
    counts = {"objects": summary.counters.get(f"{kind}-join.objects", 0)} if summary.status == "complete" else {}
    counted = {name: summary.counters.get(f"{kind}-join.{name}") for name in _COUNTERS if counts}
    counts |= {name: count for name, count in counted.items() if count is not None}
    return {"status": summary.status, **counts, "wall_seconds": summary.wall_seconds, "written": urls}


def verify_shapes(kind: str, config: RunConfig, run_url: str) -> VerifyReport | None:
    """Read the shapes of a verified run's objects again; None where none were finished.

    Args:
        kind: `mesh` or `skeleton`.
        config: of the run.
        run_url: its directory.

    Raises:
        CorruptData: files are missing or damaged; the volumes no longer say that they have any until the same command
            has made them again.
        ManifestMismatch: another version made them; the segmentation itself is verified.
    """
    store = ObjectStore(run_url, storage_options(config.storage)).folder(kind)
    begun = read_manifest(store)
    if begun is None or not read_state(store).complete:
        return None
    from pipeline.run.shape_run import open_shapes  # noqa: PLC0415

    recipe = _recipe(kind)
    made = recipe.plan.made
    section = parse_config(begun.config[kind], recipe.section, f"manifest of the {made}")
    _, run = open_shapes(recipe, config, run_url, section)
    try:
        check_same(begun, run.manifest)
    except ManifestMismatch as error:
        raise ManifestMismatch(
            f"verifying the {made} of {run_url}: {error} (of the {made} alone; the segmentation is verified); "
            f"`sam4em {kind} --restart` makes them anew"
        ) from error
    # Fragments are removed as soon as they are joined.
    return verify_run(run.store, run.stages.specs(), run.places, make_reporter(), removed=(kind,))
