"""`sam4em status --watch`: the same tables again and again; one view on a terminal, one after the other in a log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.live import Live

from pipeline.cli.options import tables_of


def watch_status(
    look: Callable[[], dict[str, Any]],
    title: str,
    *,
    interval_s: float,
    as_json: bool,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Show a status until the run is complete or Ctrl-C is pressed.

    Args:
        look: gives the status, as `api.status_report` does.
        title: of the tables.
        interval_s: seconds between two looks.
        as_json: one line of JSON per look.
        wait: waits so many seconds.
    """
    console = Console(highlight=False)
    status = look()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            if as_json:
                typer.echo(json.dumps(status))
            elif console.is_terminal:
                live.update(tables_of(status, title), refresh=True)
            else:
                console.print(tables_of(status, title))
            if status["complete"]:
                return
            try:
                wait(interval_s)
            except KeyboardInterrupt:
                return
            status = look()
