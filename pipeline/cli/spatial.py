"""`sam4em train-spatial` and `sam4em suggest-slices`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import JsonOption, echo_table
from pipeline.evaluation import shown_scores
from pipeline.run.delivery import segment_best
from pipeline.run.rounds import segment_round
from pipeline.storage import StorageOptions
from pipeline.telemetry import set_up_logging
from pipeline.training.spatial import describe_rounds, read_spatial_file, run_spatial
from pipeline.training.suggest import suggest_slices as suggested


def train_spatial(
    config: Annotated[Path, typer.Argument(help="YAML file of the training")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a dotted key, such as spatial.rounds=2"),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on from where the training was stopped")] = False,
    run_dir: Annotated[Path | None, typer.Option(help="where to write; default: the config's")] = None,
) -> None:
    """Train a model from a few labelled slices, in rounds of pseudo-labels; --resume goes on inside a round.

    Images that the config's section `segment` names are then segmented with the best network, and scored.
    """
    set_up_logging("info")
    best = run_spatial(config, settings or [], segment=segment_round, resume=resume, run_dir=run_dir)
    echo_table(describe_rounds(best.parent), str(best), as_json=False)
    for url, found in segment_best(read_spatial_file(config, settings or []), best).items():
        scores = shown_scores(found["scores"]) if "scores" in found else {}
        echo_table(found["run"] | scores, url, as_json=False)


def suggest_slices(
    source: Annotated[
        str, typer.Argument(help="directory of a train-spatial run, output of a run with kept predictions, or an image")
    ],
    count: Annotated[int, typer.Option(help="how many slices")] = 2,
    image_z_nm: Annotated[
        float | None, typer.Option(help="thickness of the image's slices in nm, where a run works at another")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Suggest which slices to label next: spread over z, and where the result is least certain."""
    rows = suggested(source, count, StorageOptions(), image_z_nm=image_z_nm)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = {str(number + 1): row for number, row in enumerate(rows)}
    echo_table({"slices": table}, source, as_json=False)
