"""From a network in training to a file that segments: the base it starts from, and the best that is kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam4em_core.checkpoint import load_checkpoint, save_checkpoint
from sam4em_core.header import CheckpointHeader, Normalization, sha256_of
from sam4em_core.training.card import write_card
from sam4em_core.training.data import GREY_FRACTIONS
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.scores import ClassScore
from sam4em_core.training.state import write_whole
from sam4em_core.training.validate import choose_region, score_regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.config import ModelConfig
    from sam4em_core.model import Sam4emNet
    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume

BEST_FILE = "best.safetensors"
CARD_FILE = "best.md"
SCORES_FILE = "scores.json"


def load_base(path: Path, model: ModelConfig) -> Sam4emNet:
    """Load the checkpoint that a run starts from.

    Raises:
        CheckpointError: the file is unreadable.
        TrainingSetupError: it holds another architecture than the config asks for.
    """
    loaded = load_checkpoint(path)
    found, wanted = loaded.network.config.model_dump(), model.model_dump()
    changed = [f"{key} {found[key]} instead of {wanted[key]}" for key in wanted if wanted[key] != found[key]]
    if changed:
        raise TrainingSetupError(
            f"the base {path} has another architecture: {'; '.join(changed)}; set training.model to match it"
        )
    return loaded.network


class BestModel:
    """Scores networks on the choose slices and keeps the best as a checkpoint."""

    def __init__(
        self, config: TrainingConfig, volumes: list[TrainingVolume], run_dir: Path, say: Callable[[str], None]
    ) -> None:
        """Cut the choose slices.

        Args:
            config: the run.
            volumes: all volumes; those with a choose range choose.
            run_dir: where the best is written.
            say: shows one line to the user.
        """
        self._config = config
        self._regions = [choose_region(volume, config) for volume in volumes if volume.choose is not None]
        self._run_dir = run_dir
        self._say = say
        self._history: list[dict[str, Any]] = []
        self._best_iou = -1.0

    def offer(self, network: Sam4emNet, step: int, seconds: float) -> None:
        """Score a network, and keep it where it is the best so far.

        Args:
            network: plain weights, no adapters.
            step: optimizer steps behind it.
            seconds: training time behind it.
        """
        if not self._regions:
            return
        header = self.header(network, {})
        validation = self._config.validation
        settings = validation.thresholds, validation.window_offsets
        scores = score_regions(network, header, self._regions, *settings)
        mean_iou = sum(score.iou for score in scores.values()) / len(scores)
        entry = {"step": step, "minutes": round(seconds / 60, 2), "mean_iou": round(mean_iou, 5)}
        self._history.append({**entry, "classes": {name: asdict(score) for name, score in scores.items()}})
        text = json.dumps(self._history, indent=1)
        write_whole(self._run_dir / SCORES_FILE, lambda place: _write_text(place, text))
        summary = ", ".join(
            f"{name} IoU {score.iou:.4f} Dice {score.dice:.4f} at {score.threshold}" for name, score in scores.items()
        )
        self._say(f"choose slices after step {step}: {summary}")
        if mean_iou > self._best_iou:
            self._best_iou = mean_iou
            self._keep(network, scores)

    def finish(self, network: Sam4emNet, step: int, seconds: float) -> Path:
        """Write the card of the best model, or keep this one where nothing chooses.

        Args:
            network: the network after the last stage.
            step: optimizer steps of the run.
            seconds: training time of the run.
        """
        path = self._run_dir / BEST_FILE
        if not self._regions:
            self._keep(network, {})
        write_card(self._run_dir / CARD_FILE, path, self._config, self._history, step, seconds)
        return path

    def header(self, network: Sam4emNet, scores: dict[str, ClassScore]) -> CheckpointHeader:
        """Describe a network with the thresholds that its scores chose (0.5 without scores)."""
        config = self._config
        return CheckpointHeader(
            name=config.name,
            model=network.config,
            classes=config.classes,
            thresholds=tuple(scores[name].threshold if name in scores else 0.5 for name in config.classes),
            working_voxel_size_zyx_nm=config.voxel_size_zyx_nm,
            accepted_voxel_size_nm=config.voxel_size_range_nm,
            normalization=Normalization(low=100 * GREY_FRACTIONS[0], high=100 * GREY_FRACTIONS[1]),
            window_slices=config.window_slices,
            warm_up_slices=config.warmup_slices,
            tile_side=config.tile_voxels,
            tile_overlap=config.tile_overlap_voxels,
            encoder_origin="trained",
            base_sha256=sha256_of(config.base) if config.base is not None else "",
            card={**config.card, **{f"iou {name}": f"{score.iou:.4f}" for name, score in scores.items()}},
        )

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        return {"history": json.dumps(self._history), "best_iou": self._best_iou}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._history = json.loads(state["history"])
        self._best_iou = float(state["best_iou"])

    def _keep(self, network: Sam4emNet, scores: dict[str, ClassScore]) -> None:
        network.encoder_origin = "trained"
        save_checkpoint(self._run_dir / BEST_FILE, network, self.header(network, scores))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
