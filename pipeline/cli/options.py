"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.table import Table

from pipeline.errors import UserError

Triple = tuple[float, float, float]

VoxelSizeOption = Annotated[
    str | None, typer.Option("--voxel-size", metavar="Z,Y,X", help="voxel size in nm where the metadata has none")
]
RoiOption = Annotated[
    str | None, typer.Option("--roi", metavar="Z0:Z1,Y0:Y1,X0:X1", help="region in voxels of the full volume")
]
ClassesOption = Annotated[str | None, typer.Option("--classes", help="comma-separated classes; default: all")]
SmallestOption = Annotated[float | None, typer.Option("--min-size-nm3", help="smaller objects are left out, in nm^3")]
IdsOption = Annotated[str | None, typer.Option("--ids", help="comma-separated ids: the only objects that are wanted")]
MipOption = Annotated[
    int | None, typer.Option("--mip", min=0, help="pyramid level that is read; default: 0, the full one")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="worker processes; default: as the run's config")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print JSON instead of a table")]


def parse_triple(text: str | None, option: str) -> Triple | None:
    """Read `Z,Y,X` as three positive numbers.

    Raises:
        UserError: the text is no such triple; names the option.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{option} {text!r}: expected three numbers Z,Y,X") from error
    if len(values) != 3 or not all(0 < value < float("inf") for value in values):
        raise UserError(f"{option} {text!r}: expected three numbers above 0, Z,Y,X")
    return (values[0], values[1], values[2])


def parse_voxels(text: str, option: str) -> tuple[int, int, int]:
    """Read `Z,Y,X` as three positive integers.

    Raises:
        UserError: the text is no such triple; names the option.
    """
    values = parse_triple(text, option)
    if values is None or any(value != int(value) for value in values):
        raise UserError(f"{option} {text!r}: expected three whole numbers Z,Y,X")
    return (int(values[0]), int(values[1]), int(values[2]))


def parse_ids(text: str | None, option: str) -> tuple[int, ...] | None:
    """Read `1,5,9` as ids.

    Raises:
        UserError: a part is no whole number above 0; names the option.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UserError(f"{option} {text!r}: expected whole numbers above 0 with commas between them, such as 1,5,9")
    return tuple(int(part) for part in parts)


def choose_objects(classes: str | None, min_size_nm3: float | None, ids: str | None, mip: int | None) -> dict[str, Any]:
    """Give the settings that meshes and skeletons share; None: as the config says.

    Raises:
        UserError: a part of `ids` is no whole number above 0.
    """
    names = classes.replace(" ", "").split(",") if classes else None
    return {"classes": names, "min_size_nm3": min_size_nm3, "ids": parse_ids(ids, "--ids"), "mip": mip}


def echo_table(rows: dict[str, Any], title: str, as_json: bool) -> None:
    """Print named values on stdout, as JSON or as a table; what has rows of its own becomes a table below."""
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    Console(highlight=False).print(tables_of(rows, title))


def tables_of(rows: dict[str, Any], title: str) -> Group:
    """Draw named values as tables, one below the other."""
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    for name, value in rows.items():
        if not _has_rows(value):
            table.add_row(name.replace("_", " "), _text(value))
    return Group(table, *(_table_of(name, value) for name, value in rows.items() if _has_rows(value)))


def _has_rows(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(row, dict) for row in value.values())


def _table_of(name: str, rows: dict[str, dict[str, Any]]) -> Table:
    """One line per row, one column per value."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    table = Table(title=name.replace("_", " "), title_justify="left")
    table.add_column(style="bold")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for key, row in rows.items():
        table.add_row(key, *(_text(row.get(column)) for column in columns))
    return table


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value)
    return str(value)
