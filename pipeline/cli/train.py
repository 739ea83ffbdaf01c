"""`sam4em train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.telemetry import set_up_logging
from pipeline.training import run_training


def train(
    config: Annotated[Path, typer.Argument(help="YAML file of the training")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a dotted key, such as stages.0.steps=9"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from the state in the run directory")] = False,
    run_dir: Annotated[Path | None, typer.Option(help="where to write; default: the config's")] = None,
) -> None:
    """Train a model; a killed training goes on with --resume and gives the same losses.

    Several GPUs: torchrun --nproc-per-node N -m pipeline.cli train CONFIG.
    """
    is_first = os.environ.get("RANK", "0") == "0"
    set_up_logging("info" if is_first else "warning")
    best = run_training(config, settings or [], resume=resume, run_dir=run_dir)
    if is_first:
        typer.echo(best)
