"""`sam4em export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.training import export_model


def export(
    source: Annotated[str, typer.Argument(help="run directory (its best checkpoint), checkpoint, or shipped model")],
    output: Annotated[Path, typer.Argument(help="the .safetensors file to write; the model card lies beside it")],
    base: Annotated[
        Path | None,
        typer.Option(help="official weights (.pt) that the checkpoint adds to; default: beside it, or $SAM4EM_BASE"),
    ] = None,
) -> None:
    """Write one file that stands alone: base and LoRA merged, with a model card."""
    for path in export_model(source, output, base=base):
        typer.echo(path)
