"""`sam4em status`, `verify`, `clean` and `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import JsonOption, VoxelSizeOption, echo_table, parse_ids, parse_triple
from pipeline.cli.watch import watch_status
from pipeline.errors import UserError
from pipeline.evaluation import shown_scores
from pipeline.run import api, looks
from pipeline.run.compare import evaluate_stored
from pipeline.run.reports import check_report_path, write_report
from pipeline.telemetry import Progressed, Reporter, StageProgress, make_reporter

RunArgument = Annotated[str, typer.Argument(help="config file, or first output of the run")]


def status(
    run: RunArgument,
    watch: Annotated[bool, typer.Option("--watch", help="show it again and again, until the run is complete")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="with --watch: seconds between two looks")] = 5.0,
    as_json: JsonOption = False,
) -> None:
    """Tell per stage what is done, failed, running and to do, with rate, time left and failed blocks."""
    if watch:
        watch_status(lambda: api.status_report(run), run, interval_s=interval, as_json=as_json)
    else:
        echo_table(api.status_report(run), run, as_json)


def verify(run: RunArgument, as_json: JsonOption = False) -> None:
    """Read every write unit again, compare checksums, and mark the output complete."""
    echo_table(api.verify_report(run), run, as_json)


def clean(run: RunArgument, as_json: JsonOption = False) -> None:
    """Remove the intermediates of a run that was verified."""
    echo_table(api.clean_report(run), run, as_json)


def report(
    run: RunArgument,
    truth: Annotated[str | None, typer.Option(help="true labels: adds scores of the first output")] = None,
    roi: Annotated[
        str | None, typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="score this region, in voxels of the truth")
    ] = None,
) -> None:
    """Write report.html into the run directory: pictures, sizes, seams, time, failures, and everything that ran."""
    if roi is not None and truth is None:
        raise UserError("--roi belongs to --truth; add it, or leave --roi out")
    with make_reporter() as reporter:
        typer.echo(looks.report_run(run, truth=truth, roi=roi, on_block=_shower(reporter)))


def evaluate(
    prediction: Annotated[str, typer.Option(help="label volume to score")],
    truth: Annotated[str, typer.Option(help="true labels: 0/1 or instances")],
    roi: Annotated[
        str | None,
        typer.Option(metavar="Z0:Z1,Y0:Y1,X0:X1", help="region in voxels of the truth volume, at its finest level"),
    ] = None,
    truth_values: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="labels of the truth that count, as one mask: for files that hold classes"),
    ] = None,
    voxel_size: VoxelSizeOption = None,
    hd95_cap_nm: Annotated[float, typer.Option(min=0, help="surface distances are exact up to here; 0 skips")] = 1000.0,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", help="also write the scores to this file; - prints them in place of a table"),
    ] = None,
) -> None:
    """Score a segmentation from volume counts: Dice, IoU, HD95, AP50, AP75, VOI, adapted Rand."""
    prints_json = json_file == Path("-")
    if json_file is not None and not prints_json:
        check_report_path(json_file, "--json")
    with make_reporter() as reporter:
        scores = evaluate_stored(
            prediction,
            truth,
            roi=roi,
            truth_values=parse_ids(truth_values, "--truth-values"),
            voxel_size_zyx_nm=parse_triple(voxel_size, "--voxel-size"),
            hd95_cap_nm=hd95_cap_nm,
            on_block=_shower(reporter),
        ).as_dict()
    if json_file is not None and not prints_json:
        write_report(json_file, scores)
    echo_table(scores if prints_json else shown_scores(scores), f"{prediction} against {truth}", as_json=prints_json)


def _shower(reporter: Reporter) -> Callable[[str, int, int], None]:
    """Let a reporter show how far scoring is."""
    stages: dict[str, StageProgress] = {}

    def show(part: str, done: int, total: int) -> None:
        stages[part] = StageProgress(total, done)
        reporter.update(Progressed(dict(stages), 1))

    return show
