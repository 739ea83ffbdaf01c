"""`sam4em mesh`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.inspect import RunArgument
from pipeline.cli.options import JsonOption, echo_table, parse_ids
from pipeline.cli.segment import RestartOption
from pipeline.run import mesh_command


def mesh(
    run: RunArgument,
    classes: Annotated[str | None, typer.Option(help="comma-separated classes; default: all")] = None,
    min_size_nm3: Annotated[float | None, typer.Option(help="smaller objects get no mesh, in nm^3")] = None,
    ids: Annotated[str | None, typer.Option(help="comma-separated ids: the only objects to mesh")] = None,
    mip: Annotated[
        int | None, typer.Option(min=0, help="pyramid level that is meshed; default: 0, the full one")
    ] = None,
    max_error_nm: Annotated[
        float | None, typer.Option(help="how far simplification may move a surface; default: a voxel's longest side")
    ] = None,
    levels: Annotated[int | None, typer.Option(min=1, max=8, help="levels of detail at most; default: 4")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="multiresolution (default) or legacy, two files per object")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="worker processes; default: as the run's config")] = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make meshes of a finished run's objects, for Neuroglancer; the same command again goes on where it stopped."""
    settings = {
        "classes": classes.replace(" ", "").split(",") if classes else None,
        "min_size_nm3": min_size_nm3,
        "ids": parse_ids(ids, "--ids"),
        "mip": mip,
        "max_error_nm": max_error_nm,
        "levels": levels,
        "format": format_,
    }
    echo_table(mesh_command.mesh_objects(run, settings=settings, workers=workers, restart=restart), run, as_json)
