"""The directory of a dual-track training, and what a round leaves in it.

    config.json             digest of config and data; a resume with others is refused
    rounds.json             one entry per finished round: scores, agreement, change, seconds
    best.safetensors        the network of the best round, with its U-Net inside
    round-N/
        propagation/ ...    round 0: its trainings (auxiliary/, propagation/, direct/)
        sdf/, masks/        later rounds: run directories of the two tracks (`rundir`)
        VOLUME/             what the round knows of a volume: see `RoundStore`
        scores.json         written last: with it the round is finished

A folder VOLUME is there wholly or not at all, and a training resumes by itself: a killed process goes on inside its
round.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.pseudo_labels import Evidence, slice_quality
from sam4em_core.training.state import make_folder, write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    from sam4em_core.training.pseudo_labels import PseudoLabels
    from sam4em_core.training.subjects import Subject

SCORES_FILE = "scores.json"
ROUNDS_FILE = "rounds.json"
CONFIG_FILE = "config.json"


class RoundStore(Protocol):
    """Where what a round knows of a volume lies, in a form that a person can look at."""

    def save(
        self, place: Path, layers: Mapping[str, npt.NDArray[np.uint8]], subject: Subject, facts: Mapping[str, Any]
    ) -> None:
        """Write the layers of a volume, all or nothing.

        Args:
            place: the volume's folder in the round.
            layers: name -> array (classes, z, y, x).
            subject: the volume, for its voxel size and its place in the image.
            facts: plain values that go with them.
        """

    def load(self, place: Path) -> tuple[dict[str, npt.NDArray[np.uint8]], dict[str, Any]] | None:
        """Read what `save` wrote; None where nothing whole lies."""


@dataclass(frozen=True)
class RoundResult:
    """A finished round."""

    index: int
    """Number of the round."""
    scores: dict[str, Any]
    """What `scores.json` holds."""
    evidence: dict[str, Evidence]
    """Per volume."""
    checkpoint: Path
    """The network that segmented the volumes."""


def save_evidence(
    store: RoundStore,
    place: Path,
    subject: Subject,
    evidence: Evidence,
    labels: PseudoLabels,
    field_czyx: npt.NDArray[np.uint8] | None,
) -> None:
    """Write what a round knows of a volume, with the labels that follow from it."""
    layers = {
        "probability": evidence.probability_czyx,
        "disagreement": evidence.disagrees_czyx.astype(np.uint8),
        "labels": labels.labels_czyx,
    }
    if field_czyx is not None:
        layers["distance"] = field_czyx
    agreement = [None if math.isnan(value) else round(float(value), 6) for value in evidence.agreement_z]
    facts = {
        "thresholds": list(evidence.thresholds),
        "agreement_by_slice": agreement,
        "quality_by_slice": [round(float(value), 6) for value in slice_quality(evidence)],
        "slices_left_out": list(labels.left_out),
        "labelled_slices": list(subject.labelled),
        "image_slices": list(subject.image_slices),
    }
    store.save(place, layers, subject, facts)


def load_evidence(store: RoundStore, place: Path) -> Evidence | None:
    """Read what a round knows of a volume; None where it is not there yet."""
    found = store.load(place)
    if found is None:
        return None
    layers, facts = found
    agreement = np.array([math.nan if value is None else value for value in facts["agreement_by_slice"]], np.float64)
    return Evidence(layers["probability"], layers["disagreement"] != 0, agreement, tuple(facts["thresholds"]))


def read_scores(place: Path) -> dict[str, Any] | None:
    """Read the scores of a finished round; None where it is not finished."""
    path = place / SCORES_FILE
    if not path.exists():
        return None
    scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return scores


def write_json(path: Path, document: object) -> None:
    """Write a document whole."""
    text = json.dumps(document, indent=1)
    write_whole(path, lambda place: _write_text(place, text))


def open_rounds(run_dir: Path, origin: dict[str, Any], *, resume: bool) -> None:
    """Make the directory of a training, or check that a resume belongs to it.

    Args:
        run_dir: the directory.
        origin: digests of config and data.
        resume: go on with what is there.

    Raises:
        TrainingSetupError: there is a training and no resume, there is none to resume, or it is another one.
        TrainingDiskError: the directory cannot be written.
    """
    path = run_dir / CONFIG_FILE
    if not resume:
        if path.exists():
            raise TrainingSetupError(
                f"the run directory {run_dir} holds a training already; resume it, or choose another directory"
            )
        make_folder(run_dir)
        write_json(path, origin)
        return
    if not path.exists():
        raise TrainingSetupError(f"there is no training in {run_dir} to resume; start without resume")
    stored = json.loads(path.read_text(encoding="utf-8"))
    changed = sorted(key for key in origin if stored.get(key) != origin[key])
    if changed:
        raise TrainingSetupError(
            f"resuming {run_dir}: {', '.join(changed)} differ from those it began with; put them back, or start a new "
            "run directory"
        )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
