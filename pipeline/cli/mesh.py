"""`sam4em mesh`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.inspect import RunArgument
from pipeline.cli.options import (
    ClassesOption,
    IdsOption,
    JsonOption,
    MipOption,
    SmallestOption,
    WorkersOption,
    choose_objects,
    echo_table,
)
from pipeline.cli.segment import RestartOption
from pipeline.run.shape_command import shape_objects


def mesh(
    run: RunArgument,
    classes: ClassesOption = None,
    min_size_nm3: SmallestOption = None,
    ids: IdsOption = None,
    mip: MipOption = None,
    max_error_nm: Annotated[
        float | None, typer.Option(help="how far simplification may move a surface; default: a voxel's longest side")
    ] = None,
    levels: Annotated[int | None, typer.Option(min=1, max=8, help="levels of detail at most; default: 4")] = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="multiresolution (default) or legacy, two files per object")
    ] = None,
    workers: WorkersOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make meshes of a finished run's objects, for Neuroglancer; the same command again goes on where it stopped."""
    settings = choose_objects(classes, min_size_nm3, ids, mip)
    settings |= {"max_error_nm": max_error_nm, "levels": levels, "format": format_}
    echo_table(shape_objects("mesh", run, settings=settings, workers=workers, restart=restart), run, as_json)
