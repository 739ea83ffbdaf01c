"""`sam4em`: registers the commands and turns errors into messages and exit codes."""

from __future__ import annotations

import io
import sys

import typer
from rich.console import Console

from pipeline import __version__
from pipeline.cli import demo as demo_command
from pipeline.cli import export, inspect, mesh, models, phantom, segment, skeleton, spatial, stitching, train, view
from pipeline.errors import Sam4emError

app = typer.Typer(
    name="sam4em",
    help="Segment petascale electron-microscopy volumes with an adapted SAM2, block by block on Dask.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo_command.demo)
app.command("phantom")(phantom.write_phantom)
app.command("segment")(segment.segment)
app.command("plan")(segment.plan)
app.command("run")(segment.run)
app.command("status")(inspect.status)
app.command("verify")(inspect.verify)
app.command("restitch")(stitching.restitch)
app.command("seams")(stitching.seams)
app.command("report")(inspect.report)
app.command("mesh")(mesh.mesh)
app.command("skeleton")(skeleton.skeleton)
app.command("clean")(inspect.clean)
app.command("evaluate")(inspect.evaluate)
app.command("train")(train.train)
app.command("train-spatial")(spatial.train_spatial)
app.command("suggest-slices")(spatial.suggest_slices)
app.command("export")(export.export)
app.command("view")(view.view)
app.add_typer(models.app, name="models")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="print the version and exit")) -> None:
    """Options that come before a command."""
    if version:
        typer.echo(f"sam4em {__version__}")
        raise typer.Exit


def entry_point() -> None:
    """Run the command line; our errors become one message on stderr and their exit code, never a traceback."""
    _write_what_a_terminal_can_show()
    try:
        app()
    except Sam4emError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"error: {error}", markup=False, style="red")
        sys.exit(error.exit_code)


def _write_what_a_terminal_can_show() -> None:
    """Let a stream that cannot write a letter, such as one without UTF-8, write its number instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
