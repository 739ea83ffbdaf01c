"""`sam4em demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import JsonOption, echo_table
from pipeline.evaluation import shown_scores
from pipeline.run.demo import run_demo


def demo(
    out: Annotated[Path, typer.Option(help="folder to write")] = Path("sam4em-demo"),
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Segment a synthetic volume from end to end, score it against its truth, and say how to look at it."""
    result = run_demo(out, workers=workers, on_step=lambda text: typer.echo(text, err=True))
    if as_json:
        echo_table({"written": [str(path) for path in result.written], "scores": dict(result.scores)}, "", as_json)
        return
    for path in result.written:
        typer.echo(path)
    echo_table(shown_scores(result.scores), "scores against the truth", as_json=False)
    typer.echo(f"look at it:  sam4em view {result.segmentation}")
