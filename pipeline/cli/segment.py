"""`sam4em segment`, `plan` and `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.options import JsonOption, RoiOption, VoxelSizeOption, echo_table, parse_triple
from pipeline.config import RunConfig, read_config
from pipeline.config.read import parse_config
from pipeline.errors import UserError
from pipeline.run.api import plan_report, run_config

ConfigArgument = Annotated[Path, typer.Argument(help="YAML file of the run")]
ClusterOption = Annotated[
    Path | None, typer.Option(help="YAML file that stands in for the config's cluster section: see configs/clusters")
]
RestartOption = Annotated[bool, typer.Option("--restart", help="delete what the manifest lists and start anew")]


def segment(
    image: Annotated[str, typer.Argument(help="path or URL of the image volume")],
    output: Annotated[str, typer.Argument(help="where to write; .zarr is OME-Zarr, anything else precomputed")],
    model: Annotated[str, typer.Option(help="name of a shipped model or path of a .safetensors file")] = "mito-lucchi",
    classes: Annotated[str | None, typer.Option(help="comma-separated classes; default: all of the model")] = None,
    also: Annotated[list[str] | None, typer.Option(help="one more output with the same ids; may be repeated")] = None,
    voxel_size: VoxelSizeOption = None,
    output_voxel_size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="voxel size in nm to write; default: the level that is read")
    ] = None,
    roi: RoiOption = None,
    mask: Annotated[str | None, typer.Option(help="label volume; blocks without a mask voxel are skipped")] = None,
    mask_voxel_size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="voxel size of the mask in nm where its metadata has none")
    ] = None,
    watershed: Annotated[bool, typer.Option("--watershed", help="part touching objects")] = False,
    min_size_nm3: Annotated[float, typer.Option(help="smaller objects are dropped, in nm^3")] = 1e6,
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 2,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")] = "auto",
    force_voxel_size: Annotated[
        bool, typer.Option("--force-voxel-size", help="run outside the voxel sizes the model was made for")
    ] = False,
    mesh: Annotated[bool, typer.Option("--mesh", help="make meshes of the objects, too")] = False,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Segment a volume: no config needed. The same command again does only what is missing."""
    image_nm = parse_triple(voxel_size, "--voxel-size")
    output_nm = parse_triple(output_voxel_size, "--output-voxel-size")
    rule: dict[str, Any] = {"min_size_nm3": min_size_nm3, "method": "watershed" if watershed else "components"}
    if watershed and _predicts_distances(model):
        rule["watershed_on"] = "sdf"
    names = [name.strip() for name in classes.split(",")] if classes else _model_classes(model)
    if len(set(names)) != len(names):
        raise UserError(f"--classes {classes!r}: give every class once")
    values: dict[str, Any] = {
        "image": {
            "url": image,
            "voxel_size_zyx_nm": image_nm,
            "roi": roi,
            "mask_url": mask,
            "mask_voxel_size_zyx_nm": parse_triple(mask_voxel_size, "--mask-voxel-size"),
        },
        "outputs": [{"url": url} for url in [output, *(also or [])]],
        "segmenter": {
            "kind": "sam4em",
            "model": model,
            "device": device,
            "force_voxel_size": force_voxel_size,
        },
        "classes": dict.fromkeys(names, rule),
        "plan": {"output_voxel_size_zyx_nm": output_nm},
        "cluster": {"workers": workers},
        "mesh": {} if mesh else None,
    }
    _run(parse_config(values, RunConfig, "command line"), restart, as_json)


def run(
    config: ConfigArgument,
    cluster: ClusterOption = None,
    restart: RestartOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a config, or go on with it: only what is missing or failed is done."""
    _run(read_config(config, cluster), restart, as_json)


def plan(
    config: ConfigArgument,
    probe: Annotated[
        int, typer.Option(min=0, help="blocks to carry out for real, on this machine; more give a narrower range")
    ] = 1,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=NUMBER", help="gpu_hour, cpu_hour, terabyte_month, million_writes; may be repeated"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what a run would cost: blocks, bytes, files, memory; hours and money from blocks that are carried out."""
    report = plan_report(read_config(config), num_probes=probe, prices=price or ())
    echo_table(report, f"plan of {config}", as_json)


def _run(config: RunConfig, restart: bool, as_json: bool) -> None:
    summary = run_config(config, restart=restart)
    echo_table(summary, config.outputs[0].url, as_json)


def _predicts_distances(model: str) -> bool:
    from pipeline.segmenter import model_header  # noqa: PLC0415

    return bool(model_header(model).model.needs_field)


def _model_classes(model: str) -> list[str]:
    from pipeline.segmenter import model_header  # noqa: PLC0415

    return list(model_header(model).classes)
