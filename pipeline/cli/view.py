"""`sam4em view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UserError
from pipeline.run import looks
from pipeline.run.reports import check_report_path, write_text


def view(
    run: Annotated[str, typer.Argument(help="config file, or output of a run")],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="the one port used; default: any free one")] = None,
    bind: Annotated[str, typer.Option(help="address to listen on; any other lets those in who know the link")] = (
        "127.0.0.1"
    ),
    truth: Annotated[str | None, typer.Option(help="one more label volume to show")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=URL", help="one more volume: image, labels, probability or distance; repeatable"),
    ] = None,
    screenshot: Annotated[Path | None, typer.Option(help="write a PNG through a headless browser and end")] = None,
    link: Annotated[bool, typer.Option("--link", help="print a link to a public Neuroglancer and end")] = False,
    page: Annotated[str | None, typer.Option(help="with --link: address of another Neuroglancer")] = None,
    state: Annotated[Path | None, typer.Option(help="with --link: also write the viewer's state, as JSON")] = None,
) -> None:
    """Show image, segmentation, meshes, skeletons, blocks and seams in Neuroglancer, served on 127.0.0.1."""
    extra = [_parse_layer(text) for text in layer or ()]
    if not link:
        if page is not None or state is not None:
            raise UserError("--page and --state belong to --link; add it, or leave them out")
        looks.view_run(
            run,
            port=port,
            bind=bind,
            truth=truth,
            extra=extra,
            screenshot=screenshot,
            on_url=typer.echo,
            on_note=_note,
        )
        return
    if state is not None:
        check_report_path(state, "--state")
    url, document = looks.link_run(run, truth=truth, extra=extra, page=page, on_note=_note)
    if state is not None:
        write_text(state, document)
    typer.echo(url)


def _note(text: str) -> None:
    typer.echo(f"note: {text}", err=True)


def _parse_layer(text: str) -> tuple[str, str]:
    """Read `KIND=URL`.

    Raises:
        UserError: no such kind, or no address.
    """
    kind, _, url = text.partition("=")
    if kind not in looks.LAYER_KINDS or not url:
        raise UserError(f"--layer {text!r}: expected KIND=URL, with KIND one of {', '.join(looks.LAYER_KINDS)}")
    return kind, url
