"""`sam4em models list` and `show`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import JsonOption, echo_table
from pipeline.segmenter import describe_model, shipped_models, shipped_unets

app = typer.Typer(help="Models that come with the package, and what a model says about itself.", no_args_is_help=True)


@app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """Name the models that come with the package."""
    rows = {name: ", ".join(describe_model(name)["classes"]) for name in shipped_models()}
    for name in shipped_unets():
        rows[name] = f"{', '.join(describe_model(name)['classes'])} (signed distances alone: a start for train-spatial)"
    echo_table(rows, "models", as_json)


@app.command("show")
def show(
    model: Annotated[str, typer.Argument(help="name of a shipped model or path of a .safetensors file")],
    as_json: JsonOption = False,
) -> None:
    """Print what a model says about itself: classes, voxel sizes, windows, thresholds, model card."""
    echo_table(describe_model(model), model, as_json)
