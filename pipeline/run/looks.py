"""What the commands call that show a finished or half-done run: viewer, links, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.config import RunConfig
from pipeline.errors import WorkError, WorldError
from pipeline.ledger import read_manifest, read_state
from pipeline.run.compare import evaluate_stored
from pipeline.run.finding import find_config, find_directory, is_config
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import storage_options
from pipeline.run.show import scene_of_output
from pipeline.storage import ObjectStore
from pipeline.viewer.scene import LayerKind, Scene

LAYER_KINDS: Final[dict[str, LayerKind]] = {
    "image": "image",
    "labels": "segmentation",
    "probability": "probability",
    "distance": "distance",
}
"""How a further volume can be drawn."""


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

    config, store = find_config(run), find_directory(run)
    scores = None
    if truth is not None:
        output = config.outputs[0].url if is_config(run) else run
        found = evaluate_stored(output, truth, roi=roi, storage=config.storage, on_block=on_block)
        scores = {"truth": truth, **found.as_dict()}
    return write_run_report(store, storage_options(config.storage), scores)


@contextmanager
def leaving_report(config: RunConfig) -> Iterator[None]:
    """Write the report of the run that is driven inside, also where it failed at its work."""
    try:
        yield
    except (WorldError, WorkError):
        leave_report_of(config, run_url_of(config))
        raise
    leave_report_of(config, run_url_of(config))


def leave_report_of(config: RunConfig, run_url: str) -> None:
    """Write the report of a run that has just ended, where one has begun; what goes wrong is told and fails nothing."""
    # Pillow and parquet take a moment to import: only where they are needed.
    from pipeline.run.report import leave_report  # noqa: PLC0415

    options = storage_options(config.storage)
    store = ObjectStore(run_url, options)
    if read_manifest(store) is not None:
        leave_report(store, options)


def _scene(
    run: str,
    truth: str | None,
    extra: Sequence[tuple[str, str]],
    on_note: Callable[[str], None],
    *,
    is_public: bool = False,
) -> Scene:
    config = find_config(run)
    output = config.outputs[0].url if is_config(run) else run
    kinds = [(LAYER_KINDS[kind], url) for kind, url in extra]
    scene = scene_of_output(output, truth=truth, storage=config.storage, extra=kinds, is_public=is_public)
    if not read_state(find_directory(run)).complete:
        on_note("the run is not complete: what is missing is shown as background, or not yet there")
    return scene
