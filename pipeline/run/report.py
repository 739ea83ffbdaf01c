"""`report.html` of a run: gathered from what lies in its directory, so it can be written again at any time.

Each part is left out, with a word why, where the run has not come so far or a file is gone: a report is also for runs
that failed.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import numpy as np
import yaml

from pipeline.config import RunConfig
from pipeline.config.schema import Sam4emSegmenter
from pipeline.errors import Sam4emError, VolumeNotFound
from pipeline.ledger import Journal, RunManifest, RunState, read_document, read_manifest, read_state
from pipeline.run.progress import SUMMARY_KEY
from pipeline.run.run_places import OUTPUT_KIND, spec_from
from pipeline.run.show import reader_of
from pipeline.run.show_tables import largest_objects, read_parts, worst_faces
from pipeline.run.timeline import TIMELINE_KEY
from pipeline.segmenter import model_header
from pipeline.stages.layout import SEGMENTS_KEY
from pipeline.storage import ObjectStore, StorageOptions, get_or_none, open_volume
from pipeline.telemetry import format_duration
from pipeline.viewer.charts import draw_histogram, draw_lines, short
from pipeline.viewer.overview import draw_planes
from pipeline.viewer.report_page import Picture, ReportPage, Section, write_page

REPORT_KEY: Final = "report.html"
SCORES_KEY: Final = "scores.json"
_WORST: Final = 8
_LISTED_FAILURES: Final = 50
_BINS: Final = 24
_SHOWN_SCORES: Final = ("iou", "dice", "precision", "recall", "hd95", "num_predicted", "num_true")
_SHOWN_INSTANCE_SCORES: Final = ("ap50", "ap75", "voi_split_bits", "voi_merge_bits", "adapted_rand_error")

log = logging.getLogger(__name__)


def leave_report(store: ObjectStore, options: StorageOptions) -> bool:
    """Write the report of a run that has just ended; what goes wrong here is told, and fails nothing.

    Returns:
        Whether it was written.
    """
    try:
        write_run_report(store, options)
    except Sam4emError as error:
        log.warning("the report could not be written: %s", error)
        return False
    return True


def write_run_report(store: ObjectStore, options: StorageOptions, scores: Mapping[str, Any] | None = None) -> str:
    """Write `report.html` into a run directory.

    Args:
        store: the run directory.
        options: how image and outputs are reached.
        scores: as `Scores.as_dict` gives them; None: those of an earlier call, where there are any.

    Returns:
        Where it is.

    Raises:
        VolumeNotFound: there is no run.
        WorldError: the report cannot be written.
    """
    manifest = read_manifest(store)
    if manifest is None:
        raise VolumeNotFound(f"writing a report: there is no run in {store.url}")
    if scores is not None:
        store.put(SCORES_KEY, json.dumps(scores, indent=1).encode())
    store.put(REPORT_KEY, write_page(gather_report(store, manifest, options)).encode())
    return f"{store.url}/{REPORT_KEY}"


def gather_report(store: ObjectStore, manifest: RunManifest, options: StorageOptions) -> ReportPage:
    """Gather what there is to say about a run."""
    state = read_state(store)
    summary = read_document(store, SUMMARY_KEY) or {}
    timeline = read_document(store, TIMELINE_KEY) or {}
    journal = Journal(store, manifest.num_tasks)
    journal.replay()
    config = RunConfig.model_validate(manifest.config)
    parts: tuple[tuple[str, Callable[[], Section | None]], ...] = (
        ("Slices through the middle", lambda: _pictures(config, manifest, options)),
        ("Scores", lambda: _scores(store)),
        ("Failures", lambda: _failures(journal)),
        ("Objects", lambda: _objects(store, manifest)),
        ("Seams between blocks", lambda: _seams(store, manifest)),
        ("Stages and time", lambda: _stages(journal, summary, timeline)),
        ("What ran", lambda: _what_ran(store, config, manifest, state)),
    )
    sections = [section for title, make in parts if (section := _attempt(title, make)) is not None]
    began = [call["began_s"] for call in timeline.get("calls", [])]
    when = datetime.fromtimestamp(began[0], UTC).strftime("%Y-%m-%d %H:%M UTC") if began else "an unknown time"
    outputs = ", ".join(section.url for section in config.outputs)
    return ReportPage(
        title=outputs,
        subtitle=f"Segmented from {config.image.url} with {manifest.segmenter.get('name', '?')}; begun {when}.",
        states=_states(state, journal),
        tiles=_headline(store, manifest, summary, journal),
        sections=sections,
        footer=f"sam4em {manifest.packages.get('sam4em', '')}; written {time.strftime('%Y-%m-%d %H:%M')}. "
        "This page needs no network; it may be sent to anybody.",
    )


def _attempt(title: str, make: Callable[[], Section | None]) -> Section | None:
    """Make a section; one that cannot be made says why."""
    try:
        return make()
    except Sam4emError as error:
        return Section(title, text=f"Not shown: {error}")


def _states(state: RunState, journal: Journal) -> list[tuple[str, str]]:
    num_failed = sum(len(stage.failed) for stage in journal.stages.values())
    words = [("complete", "good") if state.complete else ("not complete", "bad" if num_failed else "warn")]
    words.append(("verified", "good") if state.verified else ("not verified yet", "warn"))
    if state.reasons_not_bit_reproducible:
        words.append(("may differ in its last bits", "warn"))
    return words


def _headline(
    store: ObjectStore, manifest: RunManifest, summary: Mapping[str, Any], journal: Journal
) -> dict[str, str]:
    """Give the figures that one looks for first."""
    ranges = read_document(store, "ids.json") or {}
    tiles = {f"objects: {name}": f"{given['num_ids']:,}" for name, given in ranges.items()}
    outputs = [item for item in manifest.outputs if item["kind"] == OUTPUT_KIND]
    if outputs:
        tiles["voxels"] = short(float(np.prod(spec_from(outputs[0]["spec"]).shape_zyx, dtype=np.float64)))
    if summary:
        tiles["wall time of the last call"] = format_duration(summary.get("wall_seconds", 0.0))
        tiles["workers"] = str(summary.get("num_workers", 0))
        rate = summary.get("core_voxels_per_second")
        if rate:
            tiles["voxels per second"] = short(rate)
        busy = list(summary.get("busy_fraction_by_worker", {}).values())
        if any(busy):
            tiles["time inside the model"] = f"{sum(busy) / len(busy):.0%}"
        peaks = summary.get("peak_bytes_by_worker", {}).values()
        if peaks:
            tiles["largest worker memory"] = f"{max(peaks) / 2**30:.2f} GiB"
        tiles["tries repeated"] = str(summary.get("num_retried", 0))
    tiles["tasks failed"] = str(sum(len(stage.failed) for stage in journal.stages.values()))
    return tiles


def _pictures(config: RunConfig, manifest: RunManifest, options: StorageOptions) -> Section | None:
    outputs = [item for item in manifest.outputs if item["kind"] == OUTPUT_KIND]
    if not outputs:
        return None
    section = config.image
    image = open_volume(section.url, options, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    labels = open_volume(outputs[0]["url"], options, kind="labels")
    drawn = draw_planes(reader_of(image), reader_of(labels))
    name = outputs[0].get("spec", {}).get("class_name", "")
    text = f"Class {name}. Each object has the color that it has in the viewer."
    return Section("Slices through the middle", text, pictures=[Picture(caption, data) for caption, data in drawn])


def _scores(store: ObjectStore) -> Section | None:
    scores = read_document(store, SCORES_KEY)
    if scores is None:
        return None
    instances = scores.get("instances") or {}
    pairs = {name: scores.get(name) for name in _SHOWN_SCORES}
    pairs |= {name: instances[name] for name in _SHOWN_INSTANCE_SCORES if name in instances}
    text = scores.get("instances_absent") or ""
    where = f"Against {scores['truth']}. " if "truth" in scores else ""
    return Section("Scores", where + text, pairs={name.replace("_", " "): value for name, value in pairs.items()})


def _failures(journal: Journal) -> Section | None:
    errors = [
        (f"{name}-{index}", error) for name, stage in journal.stages.items() for index, error in stage.failed.items()
    ]
    if not errors:
        return None
    kinds = Counter(error.partition(":")[0] for _, error in errors)
    rows = [{"cause": kind, "tasks": count} for kind, count in kinds.most_common()]
    listed = "\n\n".join(f"{task}: {error}" for task, error in errors[:_LISTED_FAILURES])
    title = f"the first {_LISTED_FAILURES} of {len(errors)}" if len(errors) > _LISTED_FAILURES else "each of them"
    return Section(
        "Failures", "The same command tries these tasks again.", rows=rows, listing={f"Error messages: {title}": listed}
    )


def _objects(store: ObjectStore, manifest: RunManifest) -> Section | None:
    """Give sizes per class, as a histogram over powers and as a table."""
    num_parts = (manifest.num_tasks.get("resolve", 1) + 1) // 2
    volumes: dict[str, list[np.ndarray[Any, Any]]] = {}
    for table in read_parts(store, SEGMENTS_KEY, num_parts, ["class", "volume_nm3"]):
        names = np.asarray(table["class"].cast("string"))
        for name in dict.fromkeys(names.tolist()):
            volumes.setdefault(name, []).append(table["volume_nm3"].to_numpy()[names == name])
    if not volumes:
        return None
    by_class = {name: np.concatenate(found) * 1e-9 for name, found in volumes.items()}
    everything = np.concatenate(list(by_class.values()))
    low, high = np.log10(everything.min()), np.log10(everything.max())
    edges = np.logspace(low, max(high, low + 0.1) + 1e-9, _BINS + 1)
    counts = {name: np.histogram(found, edges)[0].tolist() for name, found in by_class.items()}
    chart = draw_histogram(counts, edges.tolist(), x_label="volume of an object, um³", y_label="objects")
    rows = [
        {
            "class": name,
            "objects": len(found),
            "median, um³": float(np.median(found)),
            "largest, um³": float(found.max()),
            "together, um³": float(found.sum()),
        }
        for name, found in by_class.items()
    ]
    largest = {
        f"{name}: ids of the largest": ", ".join(str(int(number)) for number in objects.ids[:10])
        for name, objects in largest_objects(store, manifest).items()
    }
    return Section("Objects", charts=[chart], rows=rows, pairs=largest)


def _seams(store: ObjectStore, manifest: RunManifest) -> Section | None:
    worst = worst_faces(store, manifest, _WORST)
    if manifest.num_tasks.get("match", 0) == 0:
        return None
    if not worst:
        return Section("Seams between blocks", "No voxel around any face between two blocks got two different ids.")
    rows, pictures = [], []
    for row in worst:
        box = ", ".join(f"{axis} {row[f'{axis}0']}:{row[f'{axis}1']}" for axis in "zyx")
        name = f"{row['class']}-{row['lower_block']}-{row['upper_block']}-{'zyx'[row['axis']]}"
        rows.append(
            {
                "face": name,
                "differing voxels": row["mismatch_voxels"],
                "of the slab": f"{row['mismatch_fraction']:.2%}",
                "near misses": row["near_misses"],
                "where": box,
            }
        )
        data = get_or_none(store, f"seams/{name}.png")
        if data is not None:
            pictures.append(Picture(name, data, is_wide=True))
    text = "Where two blocks that both labelled a voxel disagree after merging, worst faces first."
    if not pictures:
        text += " `sam4em seams` draws them, as long as the intermediates are there."
    return Section("Seams between blocks", text, rows=rows, pictures=pictures)


def _stages(journal: Journal, summary: Mapping[str, Any], timeline: Mapping[str, Any]) -> Section:
    seconds = summary.get("seconds_by_stage", {})
    rows = [
        {
            "stage": name,
            "tasks": stage.done.num_tasks,
            "done": len(stage.done),
            "empty": len(stage.empty),
            "failed": len(stage.failed),
            "worker seconds, last call": seconds.get(name),
        }
        for name, stage in journal.stages.items()
    ]
    calls = [call for call in timeline.get("calls", []) if len(call.get("points", [])) > 1]
    charts = _time_charts(calls[-1]["points"], journal) if calls else []
    busy = summary.get("busy_fraction_by_worker", {})
    pairs = {f"time inside the model: {worker}": f"{share:.0%}" for worker, share in list(busy.items())[:32] if share}
    text = f"The run took {len(calls)} calls of the driver; the charts show the last one." if len(calls) > 1 else ""
    return Section("Stages and time", text, rows=rows, charts=charts, pairs=pairs)


def _time_charts(points: Sequence[Mapping[str, Any]], journal: Journal) -> list[str]:
    """Draw the share of every stage that is done, and how busy the workers were, over time."""
    shares = {
        name: [(point["s"], point["done"].get(name, 0) / stage.done.num_tasks) for point in points]
        for name, stage in journal.stages.items()
        if stage.done.num_tasks
    }
    charts = [draw_lines(shares, x_label="seconds", y_label="share of each stage's tasks done", y_top=1.0)]
    rates = []
    for before, after in pairwise(points):
        if after["s"] > before["s"]:
            done = sum(after["done"].values()) - sum(before["done"].values())
            rates.append((after["s"], max(0.0, done / (after["s"] - before["s"]))))
    charts.append(draw_lines({"all stages": rates}, x_label="seconds", y_label="tasks per second"))
    busy = [(point["s"], point["busy"]) for point in points if point.get("busy")]
    if busy:
        line = {"workers": busy}
        charts.append(draw_lines(line, x_label="seconds", y_label="share of time inside the model", y_top=1.0))
    return [chart for chart in charts if chart]


def _what_ran(store: ObjectStore, config: RunConfig, manifest: RunManifest, state: RunState) -> Section:
    used = read_document(store, "config.json") or config.model_dump(mode="json")
    pairs: dict[str, Any] = {
        "digest of the run": manifest.digest,
        "model": manifest.segmenter.get("name"),
        "SHA-256 of its weights": manifest.segmenter.get("weights_sha256"),
        "digest of its settings": manifest.segmenter.get("config_digest"),
        "fingerprint of the image": manifest.image.get("fingerprint"),
        "level of the image": manifest.image.get("level"),
        "grey values drawn black and white": manifest.grey_range,
        "why a repeat may differ": "; ".join(state.reasons_not_bit_reproducible) or "it gives the same bytes",
        **{f"version of {name}": version for name, version in manifest.packages.items()},
        **{f"blocks of {name}": f"{grid['shape']} of {grid['core']} voxels" for name, grid in manifest.grids.items()},
    }
    listing = {"Config, every default filled in": yaml.safe_dump(used, sort_keys=False)}
    if isinstance(config.segmenter, Sam4emSegmenter):
        header = model_header(config.segmenter.model).model_dump(mode="json")
        listing["What the model says about itself"] = yaml.safe_dump(header, sort_keys=False)
    return Section("What ran", pairs=pairs, listing=listing)
