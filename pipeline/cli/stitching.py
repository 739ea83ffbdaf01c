"""`sam4em restitch` and `seams`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.inspect import RunArgument
from pipeline.cli.options import JsonOption, WorkersOption, echo_table
from pipeline.cli.segment import RestartOption
from pipeline.run import api


def restitch(
    run: RunArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[CLASS.]KEY=VALUE", help="stitch, min_iou or min_size_nm3; may be repeated"),
    ] = None,
    veto: Annotated[
        Path | None, typer.Option(help="CSV or parquet: pairs of ids or labels that must not be one, or must")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="where to write; default: beside the run's output, named after the changes")
    ] = None,
    workers: WorkersOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stitch a finished run's labels again with other thresholds or vetoes; no model runs, the run stays as it is."""
    summary = api.restitch_run(run, settings=settings or (), veto=veto, output=output, workers=workers, restart=restart)
    echo_table(summary, summary["output"], as_json)


def seams(
    run: RunArgument,
    worst: Annotated[int, typer.Option(min=0, help="faces to list and to draw, those with the largest mismatch")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Tell how far neighboring blocks disagree at every face, and draw the worst faces into the run directory."""
    echo_table(api.seam_report(run, worst=worst), run, as_json)
