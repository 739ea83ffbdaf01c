"""`sam4em view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.run import api


def view(
    run: Annotated[str, typer.Argument(help="config file, or output of a run")],
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="the one port used; default: any free one")] = None,
    truth: Annotated[str | None, typer.Option(help="one more label volume to show")] = None,
    screenshot: Annotated[Path | None, typer.Option(help="write a PNG through a headless browser and end")] = None,
) -> None:
    """Show image and segmentation in Neuroglancer, served on 127.0.0.1."""
    api.view_run(run, port=port, truth=truth, screenshot=screenshot, on_url=typer.echo)
