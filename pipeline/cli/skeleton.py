"""`sam4em skeleton`."""

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


def skeleton(
    run: RunArgument,
    classes: ClassesOption = None,
    min_size_nm3: SmallestOption = None,
    ids: IdsOption = None,
    mip: MipOption = None,
    scale: Annotated[
        float | None, typer.Option(help="a path covers what lies within this many radii; default: 1")
    ] = None,
    const_nm: Annotated[
        float | None, typer.Option(help="and so far beyond; what is not covered gets a branch; default: 100")
    ] = None,
    tick_nm: Annotated[float | None, typer.Option(help="shorter branches are removed; default: 0, none")] = None,
    dust_nm: Annotated[
        float | None, typer.Option(help="shorter pieces that nothing joins are removed; default: 0, none")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="sharded (default) or files, one per object")] = None,
    workers: WorkersOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make skeletons of a finished run's objects, for Neuroglancer; needs the extra `skeleton` (kimimaro, GPL-3.0)."""
    settings = choose_objects(classes, min_size_nm3, ids, mip)
    settings |= {"scale": scale, "const_nm": const_nm, "tick_nm": tick_nm, "dust_nm": dust_nm, "format": format_}
    echo_table(shape_objects("skeleton", run, settings=settings, workers=workers, restart=restart), run, as_json)
