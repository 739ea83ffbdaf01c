"""The parts of a run's report, each from what lies in the run directory; one that cannot be made raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
import yaml

from pipeline.config import RunConfig
from pipeline.config.schema import Sam4emSegmenter
from pipeline.ledger import Journal, RunManifest, RunState, read_document
from pipeline.run.run_places import OUTPUT_KIND
from pipeline.run.show import reader_of
from pipeline.run.show_tables import largest_objects, read_parts, worst_faces
from pipeline.segmenter import model_header
from pipeline.stages.layout import SEGMENTS_KEY
from pipeline.storage import ObjectStore, StorageOptions, get_or_none, open_volume
from pipeline.viewer.charts import draw_histogram, draw_lines
from pipeline.viewer.overview import draw_planes
from pipeline.viewer.report_page import Picture, Section

_WORST: Final = 8
_LISTED_FAILURES: Final = 50
_BINS: Final = 24
_SHOWN_SCORES: Final = ("iou", "dice", "precision", "recall", "hd95", "num_predicted", "num_true")
_SHOWN_INSTANCE_SCORES: Final = ("ap50", "ap75", "voi_split_bits", "voi_merge_bits", "adapted_rand_error")
SCORES_KEY: Final = "scores.json"


def show_pictures(config: RunConfig, manifest: RunManifest, options: StorageOptions) -> Section | None:
    """Draw the middle slices of the first output."""
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


def show_scores(store: ObjectStore) -> Section | None:
    """Show the scores that were kept; None where no truth was given."""
    scores = read_document(store, SCORES_KEY)
    if scores is None:
        return None
    instances = scores.get("instances") or {}
    pairs = {name: scores.get(name) for name in _SHOWN_SCORES}
    pairs |= {name: instances[name] for name in _SHOWN_INSTANCE_SCORES if name in instances}
    text = scores.get("instances_absent") or ""
    where = f"Against {scores['truth']}. " if "truth" in scores else ""
    return Section("Scores", where + text, pairs={name.replace("_", " "): value for name, value in pairs.items()})


def show_failures(journal: Journal) -> Section | None:
    """List failed tasks with their causes; None where none failed."""
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


def show_objects(store: ObjectStore, manifest: RunManifest) -> Section | None:
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


def show_seams(store: ObjectStore, manifest: RunManifest) -> Section | None:
    """List the worst faces, with their pictures where `sam4em seams` has drawn them."""
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


def show_stages(journal: Journal, summary: Mapping[str, Any], timeline: Mapping[str, Any]) -> Section:
    """Tell per stage what was done, and how it went over time."""
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


def show_what_ran(store: ObjectStore, config: RunConfig, manifest: RunManifest, state: RunState) -> Section:
    """List everything that decided the result."""
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
