"""`sam4em train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.telemetry import set_up_logging
from pipeline.training import run_training


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the training")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a key of the config"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the state in the run directory")] = False,
    run_dir: Annotated[Path | None, typer.Option(help="where to write; default: the config's")] = None,
) -> None:
    """Train a model; a killed training goes on with --resume and gives the same losses."""
    set_up_logging("info")
    typer.echo(run_training(config, settings or [], resume=resume, run_dir=run_dir))
