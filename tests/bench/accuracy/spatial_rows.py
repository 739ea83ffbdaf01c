"""Rows of networks that learn from a few labelled slices: Spatial-SAM, its parts, and semi-supervised peers.

    rounds      dual-track training, two rounds
    truth       a U-Net and a network around it on the labels that are there, no pseudo-labels
    memory-*    the mask track alone, with one memory or another, on one and the same labels and U-Net
    pseudo      MONAI's 3D U-Net on those labels
    cps         two of MONAI's 3D U-Nets that teach each other: on unlabelled voxels each learns the other's hard labels
                Source: Chen et al. 2021, Cross Pseudo Supervision

The labels of `memory-*` and `pseudo` are those that round 2 of the `spatial` row learns from; at 100 % they are the
truth. Where the base of a `memory-*` row does not know the classes, that row starts from the network of round 0 as the
`spatial` row does.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from peers import PeerTraining, build_peer
from recipes import is_of, row_digest
from sam_rows import LOG_FILE, training_summary
from sets import BASE, SPATIAL_BASE, UNET_BASE

from pipeline.training.round_store import OmeZarrRounds
from sam4em_core.training.data import UNLABELLED, TrainingVolume
from sam4em_core.training.dual_track import train_spatial
from sam4em_core.training.losses import masked_bce
from sam4em_core.training.pseudo_labels import select
from sam4em_core.training.round_data import mask_volumes
from sam4em_core.training.rounds import ROUNDS_FILE, SCORES_FILE, load_evidence
from sam4em_core.training.shipping import BEST_FILE
from sam4em_core.training.spatial_config import SpatialConfig
from sam4em_core.training.state import load_state, save_state, write_whole
from sam4em_core.training.subjects import SparseVolume, spread_in_z, subjects_of
from sam4em_core.training.tracks import start_with_classes, train_whole

if TYPE_CHECKING:
    from pathlib import Path

    from recipes import Recipe
    from rows import Row
    from sets import BenchSet

    from sam4em_core.training.loop import Batch

ROUNDS_FOLDER = "rounds"
_LABELS_OF_ROUND = 2
_ALL = 100
_FACTS_OF_A_ROUND = ("round", "start", "propagation_dice", "direct_dice", "choose_dice", "agreement", "change")
_CROSS_WEIGHT = 0.1
"""Largest weight of the cross supervision. Source: SSL4MIS, the usual setting for CPS on medical volumes."""
_OTHER_FILE = "other.pt"
_GROUPS_OF_ONE = 2
"""Parameter groups of one network: with and without weight decay."""


def train_row(row: Row, recipe: Recipe, variant: str, data: BenchSet, work: Path) -> dict[str, Any]:
    """Train a row of our own networks; its best weights end in its work folder.

    Args:
        row: the row.
        recipe: its recipe.
        variant: see above.
        data: the set.
        work: folder of all work folders.

    Returns:
        What the row's result says of the training.
    """
    folder = work / row.name
    config = config_of(recipe)
    is_logits = variant == "memory-logits"
    facts: dict[str, Any] = {}
    if variant == "rounds":
        best = _rounds(config, data, folder / ROUNDS_FOLDER)
        facts = {"rounds": rounds_of(folder / ROUNDS_FOLDER)}
    elif variant == "truth" or row.labels_percent == _ALL:
        best = _masks(config, list(data.training), None if is_logits else _unet(config, data, folder), folder)
    else:
        volumes, unet, facts = labels_for(row, recipe, data, work)
        best = _masks(config, volumes, None if is_logits else unet, folder, network_of_round_zero(work / facts["unet"]))
    if best != folder / BEST_FILE:
        write_whole(folder / BEST_FILE, lambda place: _copy(best, place))
    return {**summary_of(folder), **facts}


def rounds_of(run_dir: Path) -> list[dict[str, Any]]:
    """Give what a result says of each round: of round 0 also what its two networks scored, and which one was taken."""
    rounds = json.loads((run_dir / ROUNDS_FILE).read_text(encoding="utf-8"))["rounds"]
    return [{key: facts[key] for key in _FACTS_OF_A_ROUND if key in facts} for facts in rounds]


def summary_of(folder: Path) -> dict[str, Any]:
    """Sum up the logs of all trainings of a row; the losses are those of the last one that was written."""
    logs = sorted(folder.rglob(LOG_FILE), key=lambda path: path.stat().st_mtime_ns)
    parts = [training_summary(path.parent) for path in logs]
    seconds = sum(part["seconds"] for part in parts)
    total = {name: sum(part[name] for part in parts) for name in ("steps", "windows")}
    data_s = sum(part["data_fraction"] * part["seconds"] for part in parts)
    rates = {"windows_per_s": total["windows"] / seconds, "data_fraction": data_s / seconds}
    return {**parts[-1], **total, "seconds": seconds, **rates}


def config_of(recipe: Recipe, which: str = "spatial") -> SpatialConfig:
    """Give a dual-track config of a recipe, with its bases.

    Args:
        recipe: of the row.
        which: `spatial`, the row's own, or `rounds`, that of the row whose labels it takes.
    """
    values = copy.deepcopy(recipe.network[which])
    shared = values["shared"]
    if recipe.base is not None:
        shared["base"] = str(recipe.base)
    if recipe.network["direct_base_sha256"] is not None:
        values["direct"]["base"] = str(BASE)
    if recipe.network["unet_base_sha256"] is not None:
        values["sdf"]["base"] = str(UNET_BASE)
    if recipe.network["masks_base_sha256"] is not None and shared["model"]["sdf_memory"].get("source") != "logits":
        values["masks"]["base"] = str(SPATIAL_BASE)
    return SpatialConfig.model_validate(values)


def _rounds(config: SpatialConfig, data: BenchSet, place: Path) -> Path:
    sparse = [SparseVolume(volume) for volume in data.training]
    store = OmeZarrRounds(config.classes)
    return train_spatial(config, sparse, place, store, resume=(place / "config.json").exists())


def _unet(config: SpatialConfig, data: BenchSet, folder: Path) -> Path:
    """Train the U-Net on labels; a labelled slice thinner than its voxels counts for their whole thickness."""
    part = config.part("sdf")
    return train_whole(
        part, [spread_in_z(volume, part.voxel_size_zyx_nm[0]) for volume in data.training], folder / "sdf"
    )


def _masks(
    config: SpatialConfig, volumes: list[TrainingVolume], unet: Path | None, folder: Path, first: Path | None = None
) -> Path:
    """Train the mask track; `first` is the network of round 0."""
    changes = {} if unet is None else {"sdf": str(unet)}
    if first is not None:
        changes |= start_with_classes(config.part("masks").base, config.classes, first)
    return train_whole(config.part("masks", **changes), volumes, folder / "masks")


def network_of_round_zero(unet: Path) -> Path:
    """Give the network of round 0 of the rounds that a U-Net comes from."""
    rounds = unet.parents[2]
    facts = json.loads((rounds / "round-0" / SCORES_FILE).read_text(encoding="utf-8"))
    return rounds / "round-0" / facts["start"] / BEST_FILE


def labels_for(
    row: Row, recipe: Recipe, data: BenchSet, work: Path
) -> tuple[list[TrainingVolume], Path, dict[str, Any]]:
    """Give labels and U-Net that rows share: those of round 2 of the `spatial` row.

    Where that row was not trained in this work folder, or by another recipe, it is trained for this one.

    Returns:
        Volumes, the U-Net, and whose they are.
    """
    folder = work / row.name
    config = config_of(recipe, "rounds")
    source = row.with_method("spatial")
    place, facts = work / source.name / ROUNDS_FOLDER, {"labels_of": source.name}
    is_same = is_of(work / source.name, row_digest(source, recipe.rounds_minutes))
    if not is_same or not (place / ROUNDS_FILE).exists():
        place, facts = folder / ROUNDS_FOLDER, {}
        _rounds(config, data, place)
    part = config.part("masks")
    subjects = subjects_of([SparseVolume(volume) for volume in data.training], part.classes, part.voxel_size_zyx_nm)
    before = place / f"round-{_LABELS_OF_ROUND - 1}"
    labels = {}
    for subject in subjects:
        evidence = load_evidence(OmeZarrRounds(config.classes), before / subject.name)
        if evidence is None:
            raise FileNotFoundError(f"{before / subject.name}: the round has no pseudo-labels")
        labels[subject.name] = select(
            evidence, subject.truth_czyx, config.selection, subject.voxel_size_zyx_nm, is_first=False
        )
    volumes = mask_volumes(subjects, labels, config.selection.weight_last, config.selection.truth_share)
    choosing = [replace(volume, train=None) for volume in data.training if volume.choose is not None]
    # The U-Net that learnt from these labels too.
    unet = place / f"round-{_LABELS_OF_ROUND}" / "sdf" / BEST_FILE
    return [*volumes, *choosing], unet, {**facts, "unet": str(unet.relative_to(work))}


def _copy(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


class CrossTraining(PeerTraining):
    """Two networks of other random weights; each learns the labels, and what the other says of unlabelled voxels."""

    def __init__(self, recipe: Recipe, *arguments: Any) -> None:
        seed = recipe.training["seed"] + 1000
        self._other = build_peer(recipe.network, len(recipe.training["classes"]), seed)
        super().__init__(recipe, *arguments)
        self._other.to(self._device)
        if len(self._optimizer.param_groups) == _GROUPS_OF_ONE:
            self._optimizer.add_param_group({"params": list(self._other.parameters()), "weight_decay": 0.0})

    def _loss(self, batch: Batch) -> torch.Tensor:
        one, other = (self._logits(network, batch).float() for network in (self.network, self._other))
        supervised = self._supervised(one, batch) + self._supervised(other, batch)
        unlabelled = (batch.labels_BTCHW.to(self._device) == UNLABELLED).float()
        cross = masked_bce(one, (other.detach() > 0).float(), unlabelled)
        cross = cross + masked_bce(other, (one.detach() > 0).float(), unlabelled)
        return supervised + self._ramp() * cross

    def _ramp(self) -> float:
        """Source: Laine and Aila 2017: exp(-5 (1 - t)^2), over the whole training."""
        return _CROSS_WEIGHT * math.exp(-5.0 * (1.0 - min(1.0, self._share())) ** 2)

    def _save(self) -> None:
        """Write the second network first: a killed process finds one that is at most a step ahead."""
        save_state(self._folder / _OTHER_FILE, {"network": self._other.state_dict()})
        super()._save()

    def _take_up(self, state: dict[str, Any]) -> None:
        self._other.load_state_dict(load_state(self._folder / _OTHER_FILE)["network"])
        self._optimizer.add_param_group({"params": list(self._other.parameters()), "weight_decay": 0.0})
        super()._take_up(state)
