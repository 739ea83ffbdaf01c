"""What `sam4em mesh` calls, and a run whose config wants meshes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.config.schema import MeshSection
from pipeline.errors import ManifestMismatch
from pipeline.ledger import check_same, read_manifest, read_state
from pipeline.run.driver import EXIT_INTERRUPTED
from pipeline.run.finding import find_config, is_config, with_workers
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import storage_options
from pipeline.run.show import run_url_of_output
from pipeline.run.signals import stop_on_signals
from pipeline.run.verify import VerifyReport, verify_run
from pipeline.stages.layout import MESH_RUN_FOLDER
from pipeline.storage import ObjectStore
from pipeline.telemetry import make_reporter, set_up_logging


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
    config = with_workers(find_config(run), workers)
    set_up_logging(config.logging.level)
    given = config.mesh.model_dump() if config.mesh is not None else {}
    wanted = {name: value for name, value in settings.items() if value is not None}
    section = parse_config({**given, **wanted}, MeshSection, "command line")
    url = run_url_of(config) if is_config(run) else run_url_of_output(run, storage_options(config.storage))
    return make_meshes(config, url, section, restart=restart)


def make_meshes(config: RunConfig, run_url: str, section: MeshSection, *, restart: bool) -> dict[str, Any]:
    """Make meshes and tell what was made; raises as `mesh_objects`."""
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


def verify_meshes(config: RunConfig, run_url: str) -> VerifyReport | None:
    """Read the meshes of a verified run again; None where none were finished.

    Args:
        config: of the run.
        run_url: its directory.

    Raises:
        CorruptData: files are missing or damaged; the volumes no longer say that they have meshes until `sam4em mesh`
            has made them again.
        ManifestMismatch: another version made them; the segmentation itself is verified.
    """
    store = ObjectStore(run_url, storage_options(config.storage)).folder(MESH_RUN_FOLDER)
    begun = read_manifest(store)
    if begun is None or not read_state(store).complete:
        return None
    from pipeline.run.mesh import open_meshes  # noqa: PLC0415
    from pipeline.stages.mesh import NAME as FRAGMENTS_STAGE  # noqa: PLC0415

    _, run = open_meshes(config, run_url, parse_config(begun.config["mesh"], MeshSection, "manifest of the meshes"))
    try:
        check_same(begun, run.manifest)
    except ManifestMismatch as error:
        raise ManifestMismatch(
            f"verifying the meshes of {run_url}: {error} (of the meshes alone; the segmentation is verified); "
            "`sam4em mesh --restart` makes them anew"
        ) from error
    # Fragments are removed as soon as they are joined.
    return verify_run(run.store, run.stages.specs(), run.places, make_reporter(), removed=(FRAGMENTS_STAGE,))
