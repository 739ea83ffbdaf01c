"""Dual-track training: from a few labelled slices to a network that segments the volume.

    round 0      first pseudo-labels (`round_zero`)
    round 1..n   1. SDF track    the masks' signed distances -> the U-Net
                 2. mask track   truth and pseudo-labels -> the network around that U-Net
                 3. the volumes once more: the U-Net's sign and the mask are the two tracks whose agreement is judged
    stop         the masks no longer change, the choose slices no longer gain, or the last round is done

The best round by the choose slices is kept; without choose slices the one whose tracks agree best.
Source: Spatial-SAM (MODEL.md 3 of the method). What lies where: `rounds`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sam4em_core.config import UnetConfig
from sam4em_core.header import read_checkpoint_header
from sam4em_core.segmenter import BlockPredictor
from sam4em_core.training.data import grey_of
from sam4em_core.training.provenance import volume_digest
from sam4em_core.training.pseudo_labels import (
    Evidence,
    PseudoLabels,
    compare_tracks,
    inside_of,
    loss_weight,
    select,
)
from sam4em_core.training.rehearsal import rehearse
from sam4em_core.training.round_data import mask_volumes, sdf_volumes
from sam4em_core.training.round_scores import (
    classes_left_out,
    merit,
    reason_to_stop,
    require_agreement,
    score_round,
)
from sam4em_core.training.round_zero import direct_evidence, propagation_evidence, train_round_zero
from sam4em_core.training.rounds import (
    ROUNDS_FILE,
    SCORES_FILE,
    RoundResult,
    RoundStore,
    load_evidence,
    open_rounds,
    read_scores,
    save_evidence,
    write_json,
)
from sam4em_core.training.shipping import BEST_FILE
from sam4em_core.training.state import write_whole
from sam4em_core.training.subjects import SparseVolume, Subject, subjects_of
from sam4em_core.training.tracks import mask_start, train_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from sam4em_core.training.data import TrainingVolume
    from sam4em_core.training.spatial_config import SpatialConfig

    Infer = Callable[[Path, Subject, Path], npt.NDArray[np.uint8]]
    """(checkpoint, volume, folder for files) -> bytes (channels, z, y, x) on the working lattice: see
    `propagate.predict_block`."""

logger = logging.getLogger(__name__)


def infer_in_memory(
    checkpoint: Path, subject: Subject, place: Path, *, device: str = "auto", threads: int = 1
) -> npt.NDArray[np.uint8]:
    """Segment a volume in this process; `place` is not used."""
    shape = subject.image_zyx.shape
    domain = (shape[0], shape[1], shape[2])
    image = grey_of(subject.image_zyx)
    origin = (0, 0, 0)
    return BlockPredictor(checkpoint, device, threads).predict(image, origin, (origin, domain), domain, origin, domain)


def train_spatial(
    config: SpatialConfig,
    volumes: Sequence[SparseVolume],
    run_dir: Path,
    store: RoundStore,
    *,
    auxiliary: Sequence[TrainingVolume] = (),
    infer: Infer | None = None,
    resume: bool = False,
) -> Path:
    """Train a network from a few labelled slices.

    Args:
        config: the training.
        volumes: with their labelled slices; those with a choose range choose.
        run_dir: where everything is written; new, unless `resume`.
        store: how pseudo-labels are written.
        auxiliary: fully labelled volumes that propagation is learnt from first.
        infer: segments a volume with the network of a round; by default in this process.
        resume: go on from where an earlier process got to, inside a round too.

    Returns:
        The network of the best round.

    Raises:
        TrainingSetupError: config, labels or run directory do not fit.
        TrainingStopped: the tracks disagree everywhere, or a loss is not a number.
        TrainingDiskError: the run directory cannot be written.
    """
    mask_part = config.part("masks")
    subjects = subjects_of(volumes, mask_part.classes, mask_part.voxel_size_zyx_nm)
    if not resume:
        rehearse(config, subjects)
    open_rounds(run_dir, _origin(config, volumes, auxiliary), resume=resume)
    here = partial(infer_in_memory, device=mask_part.device, threads=mask_part.threads)
    run = _Rounds(
        config,
        subjects,
        [replace(sparse.volume, train=None) for sparse in volumes if sparse.volume.choose is not None],
        run_dir,
        store,
        infer or here,
    )
    results = [run.round_zero(auxiliary)]
    while len(results) <= config.rounds and run.reason_to_stop(results) is None:
        results.append(run.round(len(results), results))
    return run.finish(results)


def _origin(
    config: SpatialConfig, volumes: Sequence[SparseVolume], auxiliary: Sequence[TrainingVolume]
) -> dict[str, Any]:
    text = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    data = {volume.name: volume_digest(volume) for volume in (*(sparse.volume for sparse in volumes), *auxiliary)}
    return {"config": hashlib.sha256(text.encode()).hexdigest(), "data": data}


def _tau_nm(config: SpatialConfig) -> float:
    return float(config.part("sdf").unet.get("tau_nm", UnetConfig.model_fields["tau_nm"].default))


class _Rounds:
    """The rounds of one training."""

    def __init__(
        self,
        config: SpatialConfig,
        subjects: Sequence[Subject],
        choosing: Sequence[TrainingVolume],
        run_dir: Path,
        store: RoundStore,
        infer: Infer,
    ) -> None:
        self._config = config
        self._subjects = subjects
        self._choosing = choosing
        self._run_dir = run_dir
        self._store = store
        self._infer = infer

    def round_zero(self, auxiliary: Sequence[TrainingVolume]) -> RoundResult:
        """Make the first pseudo-labels."""
        place, start = self._place(0), time.monotonic()
        zero = train_round_zero(self._config, self._subjects, self._choosing, auxiliary, place)
        evidence = {}
        for subject in self._subjects:
            evidence[subject.name] = self._known(place, subject) or self._first(zero.start, zero.checkpoint, subject)
        return self._finished(0, zero.checkpoint, evidence, {}, zero.facts, start)

    def _first(self, start: str, checkpoint: Path, subject: Subject) -> Evidence:
        if start == "propagation" and subject.labelled:
            evidence = propagation_evidence(checkpoint, subject, self._config.part("propagation").device)
        else:
            place = self._place(0)
            evidence = direct_evidence(self._infer(checkpoint, subject, place / "inference"), checkpoint)
        self._keep(0, subject, evidence, None)
        return evidence

    def round(self, index: int, results: Sequence[RoundResult]) -> RoundResult:
        """Train both tracks on what the round before knows, and segment the volumes again."""
        place, start, before = self._place(index), time.monotonic(), results[-1]
        labels = {
            subject.name: self._selected(subject, before.evidence[subject.name], index) for subject in self._subjects
        }
        unet = self._train_sdf(index, labels, place, results)
        checkpoint = self._train_masks(index, labels, place, results, unet)
        evidence = {}
        for subject in self._subjects:
            evidence[subject.name] = self._known(place, subject) or self._segmented(index, checkpoint, subject)
        facts = {
            "slices_left_out": {name: list(item.left_out) for name, item in labels.items()},
            "classes_left_out": classes_left_out(index, labels, self._config.classes),
        }
        return self._finished(index, checkpoint, evidence, before.evidence, facts, start)

    def _train_sdf(
        self, index: int, labels: dict[str, PseudoLabels], place: Path, results: Sequence[RoundResult]
    ) -> Path:
        base = {} if index == 1 else {"base": str(self._place(index - 1) / "sdf" / BEST_FILE)}
        part = self._config.part("sdf" if index == 1 else "later_sdf", **base)
        volumes = sdf_volumes(self._subjects, labels, _tau_nm(self._config))
        return train_whole(part, [*volumes, *self._choosing], place / "sdf")

    def _train_masks(
        self, index: int, labels: dict[str, PseudoLabels], place: Path, results: Sequence[RoundResult], unet: Path
    ) -> Path:
        before = results[-1].checkpoint
        if index == 1:
            part = self._config.part("masks", sdf=str(unet), **mask_start(self._config, before))
        else:
            part = self._config.part("later_masks", sdf=str(unet), base=str(before), memory_base=None)
        weight = loss_weight(index, self._config.rounds, self._config.selection)
        volumes = mask_volumes(self._subjects, labels, weight, self._config.selection.truth_share)
        return train_whole(part, [*volumes, *self._choosing], place / "masks")

    def _segmented(self, index: int, checkpoint: Path, subject: Subject) -> Evidence:
        predicted = self._infer(checkpoint, subject, self._place(index) / "inference")
        header = read_checkpoint_header(checkpoint)
        probability, field = np.split(predicted, [len(header.classes)])
        inside = inside_of(probability, header.thresholds)
        disagrees, agreement = compare_tracks(field, inside, self._config.selection.band_fraction)
        evidence = Evidence(probability, disagrees, agreement, header.thresholds)
        self._keep(index, subject, evidence, field)
        return evidence

    def _keep(self, index: int, subject: Subject, evidence: Evidence, field: npt.NDArray[np.uint8] | None) -> None:
        labels = self._selected(subject, evidence, index + 1)
        save_evidence(self._store, self._place(index) / subject.name, subject, evidence, labels, field)

    def _known(self, place: Path, subject: Subject) -> Evidence | None:
        return load_evidence(self._store, place / subject.name)

    def _selected(self, subject: Subject, evidence: Evidence, for_round: int) -> PseudoLabels:
        return select(
            evidence,
            subject.truth_czyx,
            self._config.selection,
            subject.voxel_size_zyx_nm,
            is_first=for_round == 1,
        )

    def _finished(
        self,
        index: int,
        checkpoint: Path,
        evidence: dict[str, Evidence],
        before: dict[str, Evidence],
        facts: dict[str, Any],
        start: float,
    ) -> RoundResult:
        """Score a round and write that it is finished, unless it was."""
        place = self._place(index)
        scores = read_scores(place)
        if scores is None:
            scores = {"round": index, **facts, **score_round(self._subjects, checkpoint, evidence, before)}
            scores["seconds"] = round(time.monotonic() - start, 1)
            write_json(place / SCORES_FILE, scores)
        if index <= 1:
            require_agreement(scores, self._config.selection.min_agreement, place)
        return RoundResult(index, scores, evidence, checkpoint)

    def reason_to_stop(self, results: Sequence[RoundResult]) -> str | None:
        """Say why another round would bring nothing; None where it may."""
        scores = [result.scores for result in results]
        return reason_to_stop(scores, self._config.stop, self._config.selection.min_agreement)

    def finish(self, results: Sequence[RoundResult]) -> Path:
        """Keep the best round and sum up."""
        reason = self.reason_to_stop(results) or f"round {self._config.rounds} is the last"
        best = max(results[1:], key=lambda result: merit(result.scores))
        logger.info("stopped after round %d: %s; round %d is the best", results[-1].index, reason, best.index)
        first = results[0].scores["choose_dice"]
        if first is not None and best.scores["choose_dice"] is not None and first > best.scores["choose_dice"]:
            logger.warning(
                "round 0 scored higher on the choose slices (Dice %.4f, round %d %.4f): the rounds brought nothing; "
                "train them longer. Its network, without a U-Net, is %s",
                first,
                best.index,
                best.scores["choose_dice"],
                results[0].checkpoint,
            )
        path = self._run_dir / BEST_FILE
        write_whole(path, lambda place: _copy(best.checkpoint, place))
        summary = {"best_round": best.index, "stopped": reason, "rounds": [result.scores for result in results]}
        write_json(self._run_dir / ROUNDS_FILE, summary)
        return path

    def _place(self, index: int) -> Path:
        return self._run_dir / f"round-{index}"


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
