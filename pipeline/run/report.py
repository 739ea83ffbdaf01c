"""`report.html` of a run: gathered from what lies in its directory, so it can be written again at any time.

Each part is left out, with a word why, where the run has not come so far or a file is gone: a report is also for runs
that failed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from pipeline.config import RunConfig
from pipeline.errors import Sam4emError, VolumeNotFound
from pipeline.ledger import Journal, RunManifest, RunState, read_document, read_manifest, read_state
from pipeline.run.progress import SUMMARY_KEY
from pipeline.run.report_sections import (
    SCORES_KEY,
    show_failures,
    show_objects,
    show_pictures,
    show_scores,
    show_seams,
    show_stages,
    show_what_ran,
)
from pipeline.run.run_places import OUTPUT_KIND, spec_from
from pipeline.run.timeline import TIMELINE_KEY
from pipeline.storage import ObjectStore, StorageOptions
from pipeline.telemetry import format_duration
from pipeline.viewer.charts import short
from pipeline.viewer.report_page import ReportPage, Section, write_page

REPORT_KEY: Final = "report.html"

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
        ("Slices through the middle", lambda: show_pictures(config, manifest, options)),
        ("Scores", lambda: show_scores(store)),
        ("Failures", lambda: show_failures(journal)),
        ("Objects", lambda: show_objects(store, manifest)),
        ("Seams between blocks", lambda: show_seams(store, manifest)),
        ("Stages and time", lambda: show_stages(journal, summary, timeline)),
        ("What ran", lambda: show_what_ran(store, config, manifest, state)),
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
