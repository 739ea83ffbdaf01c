"""What a row trains with, as plain values: the same windows, variation, loss, schedule and minutes for every method.

A recipe is a `TrainingConfig` of the core, for the peers too: their loop reads the same fields. Its digest decides
whether a result that is there still answers the question.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rows import METHODS, Method, Row
from sets import (
    BASE,
    CONTEXT_SLICES,
    MEMORY_BASE,
    SETS,
    SPATIAL_BASE,
    UNET_BASE,
    UNET_CONTEXT_SLICES,
    describe_set,
)

from sam4em_core.header import read_unet_header, sha256_of

if TYPE_CHECKING:
    from pathlib import Path

SCORER_VERSION = 1
"""Raised when scoring changes, so that every row is run again."""

DIGEST_FILE = "digest.txt"
"""Digest of the recipe that a work folder belongs to."""

THIN_SETS = ("vnc",)
"""Sets of a few thick sections: a window of 32 slices does not fit."""

_LATER = ("variant", "sdf_memory", "half")
"""Fields of `Method` that came later: left out where they are empty, so that older results stay valid."""

_STEPS = 1_000_000
"""Stages end by time; nobody does so many steps."""

_VARIATION = {
    "scale_fraction": 0.15,
    "contrast_fraction": 0.2,
    "brightness": 0.08,
    "gamma_fraction": 0.2,
    "noise_sigma": 0.03,
    "fault_probability": 0.08,
}


@dataclass(frozen=True)
class Recipe:
    """What one row trains with."""

    training: dict[str, Any]
    """Settings of `TrainingConfig`; without a base, which is written per row."""
    base: Path | None
    """Checkpoint that weights are taken from where they fit; None: random weights."""
    network: dict[str, Any]
    """Settings of a peer's network, and of the parts of a network around a U-Net; empty for others."""
    peer_checks: int = 2
    """How often a peer is scored on the choose slices; the best of these is kept."""
    rounds_minutes: float = 0.0
    """Training time of the `spatial` row that it takes labels from; 0 where it takes none."""

    @property
    def context_slices(self) -> int:
        """Working slices of image around the slices that are scored."""
        slices: int = self.network.get("context_slices", CONTEXT_SLICES)
        return slices

    def plain(self) -> dict[str, Any]:
        """The recipe as values that JSON can hold, the base by its digest."""
        base = None if self.base is None else sha256_of(self.base)
        return {"training": self.training, "base_sha256": base, "network": self.network, "checks": self.peer_checks}


def recipe_of(row: Row, minutes: float) -> Recipe:
    """Give the recipe of a row.

    Args:
        row: the row; one that reads another method's weights has that method's recipe.
        minutes: training time.
    """
    method = METHODS[row.method]
    if method.weights_of is not None:
        return recipe_of(row.with_method(method.weights_of), minutes)
    spec = SETS[row.set]
    is_peer = method.kind == "peer" and method.variant != "pseudo"
    has_rounds = method.kind == "spatial" or method.variant == "pseudo"
    base = None
    if spec.base and not method.random_start and not is_peer:
        base = MEMORY_BASE if has_rounds else BASE
    training = {
        "name": row.name,
        "seed": row.seed,
        "device": "cuda" if row.tier == "L" else "cpu",
        "threads": 1,
        "clock": "wall" if row.tier == "L" else "cpu",
        "classes": [item.name for item in spec.classes],
        "voxel_size_zyx_nm": list(spec.working_zyx_nm),
        "voxel_size_range_nm": [4.0, 50.0],
        "dtype": "bfloat16" if row.tier == "L" or method.half else "float32",
        "checkpoint_every_steps": 100,
        "stages": _stages(method, minutes, from_base=base is not None, thin=row.set in THIN_SETS),
        "sampling": {"foreground_fraction": 0.5},
        "augment": _VARIATION,
        "validation": {"every_steps": _STEPS, "max_slices": 64, "pictures": False},
        "tensorboard": False,
        "model": {"memory": method.memory, "two_stage": method.two_stage} if method.kind == "sam" else {},
    }
    network = _peer_network(method, row.set) if method.kind == "peer" else {}
    rounds_minutes = 0.0
    if has_rounds:
        labels_from = row.with_method("spatial")
        rounds_minutes = minutes * labels_from.minutes / row.minutes
        # A U-Net that has learnt other classes keeps seeing those: small new ones are not found from it.
        unet_base = spec.base and set(training["classes"]) <= set(read_unet_header(UNET_BASE).classes)
        bases = {"from_base": spec.base, "unet_from_base": unet_base}
        network["spatial"] = _spatial(method, training, minutes, **bases)
        network["rounds"] = _spatial(METHODS["spatial"], training, rounds_minutes, **bases)
        starts = (("direct", BASE, spec.base), ("unet", UNET_BASE, unet_base), ("masks", SPATIAL_BASE, spec.base))
        for part, start, is_used in starts:
            network[f"{part}_base_sha256"] = sha256_of(start) if is_used else None
        network["context_slices"] = UNET_CONTEXT_SLICES
    return Recipe(training, base, network, rounds_minutes=rounds_minutes)


def row_digest(row: Row, minutes: float) -> str:
    """Digest of everything that a row's numbers follow from, code and machine aside; 64 hex digits."""
    values = {
        "row": asdict(row),
        "method": {key: value for key, value in asdict(METHODS[row.method]).items() if value or key not in _LATER},
        "minutes": minutes,
        "set": describe_set(row.set),
        "recipe": recipe_of(row, minutes).plain(),
        "scorer": SCORER_VERSION,
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def is_of(folder: Path, digest: str) -> bool:
    """Whether a work folder belongs to a recipe."""
    path = folder / DIGEST_FILE
    return path.exists() and path.read_text() == digest


def _stages(method: Method, minutes: float, *, from_base: bool, thin: bool) -> list[dict[str, Any]]:
    if method.kind == "peer":
        return [_peer_stage(method, minutes, thin=thin)]
    if method.lora_rank is not None:
        return _lora_stages(method.lora_rank, minutes)
    recipe = "full" if from_base else "pretrain"
    if method.memory == "none":
        shares = (0.5, 0.5) if from_base else (0.75, 0.25)
        return [
            _stage("slices", recipe, minutes * shares[0], (8, 1, 160), 1e-3, 0.4),
            _stage("wide", recipe, minutes * shares[1], (8, 1, 224), 4e-4, 0.02),
        ]
    slices = [] if from_base else [_stage("slices", recipe, minutes * 0.35, (8, 1, 160), 1e-3, 0.6)]
    shares = (0.75, 0.25) if from_base else (0.5, 0.15)
    return [
        *slices,
        _stage("pairs", recipe, minutes * shares[0], (4, 2, 160), 1e-3, 0.4, memory=True),
        # A window takes as long as eight slices and shows one place: few, at a low rate, or they undo the pairs.
        _stage("windows", recipe, minutes * shares[1], (1, 8, 224), 1e-4, 0.02, memory=True, mask_faults=0.2),
    ]


def _lora_stages(rank: int, minutes: float) -> list[dict[str, Any]]:
    """Stage A on pairs and windows, then stage B on windows."""
    lora = {"lora_rank": rank, "lora_alpha": 2 * rank}
    parts = [
        _stage("A-pairs", "lora-encoder", minutes * 0.4, (4, 2, 160), 1e-3, 0.4, memory=True),
        _stage("A", "lora-encoder", minutes * 0.3, (1, 8, 224), 5e-4, 0.1, memory=True, mask_faults=0.2),
        _stage("B", "lora-decoder", minutes * 0.3, (1, 8, 224), 5e-4, 0.02, memory=True, mask_faults=0.2),
    ]
    return [{**part, **lora} for part in parts]


def _stage(
    name: str,
    recipe: str,
    minutes: float,
    windows: tuple[int, int, int],
    rate: float,
    final: float,
    *,
    memory: bool = False,
    mask_faults: float = 0.0,
) -> dict[str, Any]:
    """Give one stage; `windows` is windows per step, slices per window, side of the crop."""
    batch, slices, crop = windows
    values: dict[str, Any] = {
        "name": name,
        "recipe": recipe,
        "steps": _STEPS,
        "limit_minutes": minutes,
        "batch_windows": batch,
        "window_slices": slices,
        "crop_voxels": crop,
        "learning_rate": rate,
        "final_rate_fraction": final,
        "warmup_steps": 30,
    }
    dropout = {"prompt_dropout": 0.4, "memory_dropout": 0.3, "mask_faults": mask_faults}
    return {**values, **dropout} if memory else values


def _spatial(
    method: Method, training: dict[str, Any], minutes: float, *, from_base: bool, unet_from_base: bool
) -> dict[str, Any]:
    """Give the values of a `SpatialConfig`, bases aside: the minutes are those of all its trainings together.

    The U-Net works at twice the voxel size, with the smaller patches that fit the sets.
    """
    shared = {key: value for key, value in training.items() if key not in ("name", "stages")}
    shared["model"] = {"sdf_memory": dict(method.sdf_memory)}
    recipe = "full" if from_base else "pretrain"
    # Of the memory rows the labels, and the U-Net, are made with the minutes of a row of rounds.
    own = 0.25 if method.variant == "rounds" else 0.5

    # Rates by the choose slices; from random weights a class of few voxels is lost at higher ones.
    unet_rates = (2e-3, 1e-3) if unet_from_base else (1e-3, 5e-4)

    def patches(part: float, how: str, rate: float) -> dict[str, Any]:
        return {"stages": [_stage("patches", how, minutes * part, (2, 24, 64), rate, 0.02)]}

    step = dict(method.sdf_memory).get("stride", 1)
    # One neighbor for every slice, then several; as many slices in a step where neighbors are far.
    pairs, windows = ((4, 2), (1, 8)) if step == 1 else ((1, 2 * step), (1, 4 * step))

    def masks(part: float, how: str) -> list[dict[str, Any]]:
        """Many places first, then windows that show all neighbors: as the 3D memory learns."""
        return [
            _stage("pairs", how, minutes * part * 0.75, (*pairs, 160), 1e-3, 0.4),
            _stage("windows", how, minutes * part * 0.25, (*windows, 160), 1e-4, 0.02),
        ]

    coarse = [2 * size for size in training["voxel_size_zyx_nm"]]
    unet = {"voxel_size_zyx_nm": coarse, "unet": {"tau_nm": 12.8 * max(coarse)}}
    return {
        "name": training["name"],
        "shared": shared,
        "rounds": 2,
        "seed": training["seed"],
        "propagation": {"stages": [_stage("films", recipe, minutes * 0.03, (1, 9, 160), 5e-4, 0.02)]},
        "direct": {"stages": [_stage("pairs", recipe, minutes * 0.2, (4, 2, 160), 1e-3, 0.02, memory=True)]},
        "sdf": {**unet, **patches(own, recipe, unet_rates[0])},
        "later_sdf": patches(0.12, "full", unet_rates[1]),
        "masks": {"stages": masks(own, recipe)},
        "later_masks": {"stages": masks(0.15, "full")},
        "stop": {"min_change": 0.0, "min_gain": 0.0},
    }


def _peer_stage(method: Method, minutes: float, *, thin: bool) -> dict[str, Any]:
    volumetric = (2, 8, 160) if thin else (2, 32, 96)
    windows = volumetric if method.dimensions == 3 else (8, 1, 160)
    return _stage("peer", "full", minutes, windows, method.learning_rate, 0.02)


def _peer_network(method: Method, set_name: str) -> dict[str, Any]:
    """Settings of MONAI's DynUNet (the network of nnU-Net), and depth and side of its inference tiles."""
    if method.dimensions == 2:
        filters = [24, 48, 96, 192, 256]
        return {"dimensions": 2, "filters": filters, "strides": [[1, 1]] + [[2, 2]] * 4, "tile": [1, 256]}
    strides, tile = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]], [32, 128]
    if set_name in THIN_SETS:
        # Sections five times as thick as their pixels: the plane is halved first, as nnU-Net does.
        strides, tile = [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2]], [8, 192]
    return {"dimensions": 3, "filters": [16, 32, 64, 128], "strides": strides, "tile": tile}
