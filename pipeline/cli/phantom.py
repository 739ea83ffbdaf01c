"""`sam4em phantom`."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import parse_triple, parse_voxels
from pipeline.phantom import LAYERS, PhantomSpec
from pipeline.run.phantom import PhantomLayer
from pipeline.run.phantom import write_phantom as draw
from pipeline.telemetry import Progressed, StageProgress, make_reporter


def write_phantom(
    output: Annotated[str, typer.Argument(help="folder or URL; each layer becomes OUTPUT/LAYER.zarr")],
    shape: Annotated[str, typer.Option(metavar="Z,Y,X", help="voxels")] = "64,512,512",
    voxel_size: Annotated[str, typer.Option("--voxel-size", metavar="Z,Y,X", help="nm")] = "8,8,8",
    seed: Annotated[int, typer.Option(help="another seed is another piece of tissue")] = 0,
    layers: Annotated[str, typer.Option(help="comma-separated layers to write")] = ",".join(LAYERS),
    noise: Annotated[float, typer.Option(help="standard deviation of the detector noise in grey values")] = 9.5,
    contrast_drift: Annotated[float, typer.Option(help="slow relative change of brightness, one deviation")] = 0.04,
    section_jitter: Annotated[
        float, typer.Option(help="sideways displacement of a section in nm, one deviation")
    ] = 1.0,
    missing_sections: Annotated[float, typer.Option(help="fraction of blank sections")] = 0.0,
    damaged_sections: Annotated[float, typer.Option(help="fraction of folded, charged or dim sections")] = 0.0,
    workers: Annotated[int, typer.Option(min=1, help="processes that draw")] = 2,
) -> None:
    """Write a synthetic EM volume with exact truth: neurites, mitochondria, synapses, glia."""
    size = parse_triple(voxel_size, "--voxel-size")
    spec = PhantomSpec(
        seed=seed,
        shape_zyx=parse_voxels(shape, "--shape"),
        voxel_size_zyx_nm=size or (8.0, 8.0, 8.0),
        noise_sigma=noise,
        contrast_drift_fraction=contrast_drift,
        section_jitter_nm=section_jitter,
        missing_section_fraction=missing_sections,
        damaged_section_fraction=damaged_sections,
    )
    wanted = tuple(
        PhantomLayer(name, f"{output.rstrip('/')}/{name}.zarr") for name in layers.replace(" ", "").split(",")
    )
    with make_reporter() as reporter:
        draw(
            spec,
            wanted,
            workers=workers,
            on_block=lambda done, total: reporter.update(Progressed({"phantom": StageProgress(total, done)}, workers)),
        )
    for item in wanted:
        typer.echo(item.url)
