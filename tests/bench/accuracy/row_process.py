"""One row, in a process of its own: train or take trained weights, calibrate, score, write the result.

`bench.py` starts it. What a row keeps in its work folder lets a killed process go on where it stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import spatial_rows
from peers import BEST_FILE as PEER_FILE
from peers import STATE_FILE, PeerTraining, build_peer, predict_peer
from recipes import DIGEST_FILE, Recipe, is_of, recipe_of, row_digest
from rows import METHODS, Row, row_named
from sam_rows import sam_predictor, train_sam, training_summary
from scoring import calibrate, score_class
from sets import REPOSITORY, BenchSet, load_set, region_of

from pipeline.run.work import peak_memory_bytes
from sam4em_core.model import count_parameters
from sam4em_core.training.state import load_state, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt

    from sam4em_core.training.validate import ChooseRegion

    Predictor = Callable[[ChooseRegion], npt.NDArray[np.float32]]

BUSY_EXIT = 75
"""Exit code where another process has the row already (EX_TEMPFAIL of sysexits.h)."""
TRAINED_FILE = "trained.json"
PROBABILITIES_FILE = "report.npz"
logger = logging.getLogger("row")


@dataclass(frozen=True)
class Trained:
    """Trained weights and what is known of them."""

    folder: Path
    """Where the weights are."""
    facts: dict[str, Any]
    """Start of the weights, log in brief, and whose they are."""


class Clock:
    """Seconds of the parts of a row."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def mark(self, name: str) -> None:
        """Book the time since the last mark."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 1)
        self._last = now


def main() -> int:
    """Run one row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    row = row_named(arguments.name)
    folder = arguments.work / row.name
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder) as is_ours:
        if not is_ours:
            sys.stderr.write(f"{row.name}: another process has it\n")
            return BUSY_EXIT
        forget_other_recipe(folder, row_digest(row, arguments.minutes))
        result = run_row(row, arguments.minutes, arguments.work)
        text = json.dumps(result, indent=1) + "\n"
        arguments.results.mkdir(parents=True, exist_ok=True)
        write_whole(arguments.results / f"{row.name}.json", lambda place: _write_text(place, text))
        (folder / STATE_FILE).unlink(missing_ok=True)
    return 0


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Hold a row's lock; false where another process holds it. The system frees it when a process dies."""
    with folder.with_suffix(".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def forget_other_recipe(folder: Path, digest: str) -> None:
    """Empty a work folder that belongs to another recipe of the same row."""
    if is_of(folder, digest):
        return
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / DIGEST_FILE).write_text(digest)


def run_row(row: Row, minutes: float, work: Path) -> dict[str, Any]:
    """Give the result of a row.

    Args:
        row: the row.
        minutes: training time.
        work: folder of all work folders.
    """
    clock, method, recipe = Clock(), METHODS[row.method], recipe_of(row, minutes)
    cpu_before, load_before = time.process_time(), os.getloadavg()[0]
    data = load_set(row.set, row.labels_percent, work / "sets")
    choose = region_of(data.choose, data.spec.working_zyx_nm, recipe.context_slices)
    clock.mark("data")
    trained = obtain_weights(row, minutes, work, data, choose)
    clock.mark("training_and_validation")
    predictor, parameters = predictor_of(row, recipe, trained.folder, len(data.spec.classes))
    chosen = predictor(choose)
    clock.mark("predicting_choose")
    classes = {
        item.name: {"choose": asdict(calibrate(chosen[index], choose.truth_czyx[index]))}
        for index, item in enumerate(data.spec.classes)
    }
    if row.tier != "P":
        add_report(classes, predictor, data, recipe.context_slices, work / row.name, clock)
    return {
        "row": row.name,
        "digest": row_digest(row, minutes),
        **asdict(row),
        "minutes": minutes,
        "title": method.title,
        "set_title": data.spec.title,
        "command": f"python tests/bench/accuracy/bench.py --tier {row.tier} --minutes {minutes:g} --only {row.name}",
        "labelled_slices": data.labelled,
        "classes": classes,
        "parameters": parameters,
        "training": trained.facts,
        "peak_resident_gib": round(peak_memory_bytes() / 2**30, 3),
        "seconds": clock.seconds,
        "cpu_seconds": round(time.process_time() - cpu_before, 1),
        "load_average": [load_before, os.getloadavg()[0]],
        "threads": recipe.training["threads"],
        "machine": machine(),
        "git_commit": git_commit(),
    }


def obtain_weights(row: Row, minutes: float, work: Path, data: BenchSet, choose: ChooseRegion) -> Trained:
    """Train, or take the weights of the method that this row reads out in another way."""
    method = METHODS[row.method]
    if method.weights_of is not None:
        source = row.with_method(method.weights_of)
        folder = work / source.name
        if is_of(folder, row_digest(source, minutes)) and (folder / TRAINED_FILE).exists():
            facts = json.loads((folder / TRAINED_FILE).read_text())
            return Trained(folder, {**facts, "weights_of": source.name})
        logger.info("%s is not trained here; training the same recipe", source.name)
    folder = work / row.name
    path = folder / TRAINED_FILE
    if not path.exists():
        facts = train_row(row, recipe_of(row, minutes), data, choose, folder)
        text = json.dumps(facts)
        write_whole(path, lambda place: _write_text(place, text))
    return Trained(folder, json.loads(path.read_text()))


def train_row(row: Row, recipe: Recipe, data: BenchSet, choose: ChooseRegion, folder: Path) -> dict[str, Any]:
    """Train a row's network and say what is known of it."""
    method = METHODS[row.method]
    if method.kind == "spatial":
        facts = spatial_rows.train_row(row, recipe, method.variant, data, folder.parent)
        return {**facts, "start": {"from": "random weights" if recipe.base is None else recipe.base.stem}}
    if method.kind == "sam":
        start = train_sam(recipe, data, folder)
        checks = json.loads((folder / "scores.json").read_text())
        history = [{"step": entry["step"], "mean_iou": entry["mean_iou"]} for entry in checks]
    else:
        start = {"from": "random weights"}
        history = _peer_training(row, recipe, data, choose, folder).run()
    return {**training_summary(folder), "start": start, "choose_checks": history}


def _peer_training(row: Row, recipe: Recipe, data: BenchSet, choose: ChooseRegion, folder: Path) -> PeerTraining:
    variant = METHODS[row.method].variant
    if variant == "pseudo":
        volumes, _, _ = spatial_rows.labels_for(row, recipe, data, folder.parent)
        data = replace(data, training=tuple(volumes))
    training = spatial_rows.CrossTraining if variant == "cps" else PeerTraining
    return training(recipe, data, [choose], folder)


def predictor_of(row: Row, recipe: Recipe, folder: Path, num_classes: int) -> tuple[Predictor, int]:
    """Load weights and give what predicts a region, and the number of parameters."""
    method, device = METHODS[row.method], recipe.training["device"]
    if method.kind != "peer":
        return sam_predictor(folder, method.reading, device)
    network = build_peer(recipe.network, num_classes, row.seed)
    network.load_state_dict(load_state(folder / PEER_FILE)["network"])
    network.to(device).eval()
    return lambda region: predict_peer(network, recipe.network, region), count_parameters(network)


def add_report(
    classes: dict[str, dict[str, Any]],
    predictor: Predictor,
    data: BenchSet,
    context_slices: int,
    folder: Path,
    clock: Clock,
) -> None:
    """Predict the report slices, score them with the thresholds chosen before, and keep the probabilities."""
    spec = data.spec
    probability = predictor(region_of(data.report, spec.working_zyx_nm, context_slices))
    clock.mark("predicting_report")
    for index, item in enumerate(spec.classes):
        classes[item.name]["report"] = score_class(
            probability[index] >= classes[item.name]["choose"]["threshold"],
            data.report.truth_czyx[index],
            spec.voxel_size_zyx_nm,
            has_objects=item.objects,
            objects_zyx=data.report.objects[index],
            min_object_voxels=spec.min_object_voxels,
        )
    stored = np.rint(probability * 255).astype(np.uint8)
    write_whole(folder / PROBABILITIES_FILE, lambda place: _write_probabilities(place, stored))
    clock.mark("scoring")


def machine() -> dict[str, Any]:
    """Describe the hardware and the versions that matter."""
    import measure
    import monai
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {**measure.machine(), "gpu": device, "torch": torch.__version__, "monai": monai.__version__}


def git_commit() -> str:
    """Give the commit, with a mark where tracked files differ from it."""
    commit = _git("rev-parse", "HEAD")
    return f"{commit} with changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, check=False, capture_output=True, text=True)
    return done.stdout.strip()


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_probabilities(path: Path, probability_czyx: npt.NDArray[np.uint8]) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, probability_czyx=probability_czyx)


if __name__ == "__main__":
    raise SystemExit(main())
