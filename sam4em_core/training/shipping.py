"""From a network in training to a file that segments: the base it starts from, and the best that is kept."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam4em_core.checkpoint import load_checkpoint, save_checkpoint, shortened
from sam4em_core.config import ModelConfig
from sam4em_core.errors import CheckpointError
from sam4em_core.header import BASE_SUFFIXES, CheckpointHeader, Normalization, sha256_of
from sam4em_core.model import build_model
from sam4em_core.training.card import write_card
from sam4em_core.training.data import GREY_FRACTIONS
from sam4em_core.training.errors import TrainingDiskError, TrainingSetupError
from sam4em_core.training.pictures import SliceGallery
from sam4em_core.training.scores import ClassScore
from sam4em_core.training.state import write_whole
from sam4em_core.training.validate import choose_region, score_regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.model import Sam4emNet
    from sam4em_core.training.board import Board
    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume

logger = logging.getLogger(__name__)

BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
PICTURES_FOLDER = "pictures"
CARD_FILE = "best.md"
SCORES_FILE = "scores.json"


_DELTA_LIMIT_BYTES = 32_000_000
"""What training adds to an official base is meant to stay below this."""


def start_model(config: TrainingConfig) -> ModelConfig:
    """Give the architecture that a training config asks for; an official backbone brings its own settings.

    Raises:
        CoreConfigError: a setting is unknown or out of range.
    """
    values = {**config.model, "num_classes": len(config.classes)}
    backbone = values.pop("backbone", "small")
    return ModelConfig.of(values) if backbone == "small" else ModelConfig.official(backbone, **values)


def is_official(base: str | Path | None) -> bool:
    """Whether a base is a file of official weights, and not a checkpoint of ours."""
    return base is not None and Path(base).suffix in BASE_SUFFIXES


def load_base(path: Path, model: ModelConfig) -> Sam4emNet:
    """Load what a run starts from: a checkpoint of ours, or official weights of the model's backbone.

    Raises:
        CheckpointError: the file is unreadable.
        ArchitectureMismatch: official weights of another size.
        TrainingSetupError: it holds another architecture than the config asks for.
    """
    if is_official(path):
        return _load_official_base(path, model)
    loaded = load_checkpoint(path)
    found, wanted = loaded.network.config.model_dump(), model.model_dump()
    changed = [f"{key} {found[key]} instead of {wanted[key]}" for key in wanted if wanted[key] != found[key]]
    if changed:
        raise TrainingSetupError(
            f"the base {path} has another architecture: {'; '.join(changed)}; set training.model to match it"
        )
    return loaded.network


def _load_official_base(path: Path, model: ModelConfig) -> Sam4emNet:
    if model.backbone == "small":
        raise TrainingSetupError(
            f"the base {path} is a file of official weights, the model's backbone is 'small'; set training.model."
            "backbone to its name, such as sam2.1_hiera_t"
        )
    # Imports sam2's builder and Hydra: runs without official weights need neither.
    from sam4em_core.official import load_official  # noqa: PLC0415

    network = build_model(model)
    report = load_official(network, path)
    logger.info(
        "base %s: %d tensors filled, the image encoder strictly; %d of the decoders stay random (%s); %d of the file "
        "are not used",
        path,
        len(report.loaded),
        len(report.missing),
        shortened(list(report.missing)),
        len(report.unexpected),
    )
    return network


class BestModel:
    """Scores networks on the choose slices and keeps the best and the last as checkpoints."""

    def __init__(
        self,
        config: TrainingConfig,
        volumes: list[TrainingVolume],
        run_dir: Path,
        say: Callable[[str], None],
        board: Board | None = None,
    ) -> None:
        """Cut the choose slices.

        Args:
            config: the run.
            volumes: all volumes; those with a choose range choose.
            run_dir: where the best is written.
            say: shows one line to the user.
            board: where curves are drawn.
        """
        self._config = config
        self._board = board
        self.base_sha256 = sha256_of(config.base) if config.base is not None else ""
        self._regions = [choose_region(volume, config) for volume in volumes if volume.choose is not None]
        self._run_dir = run_dir
        self._say = say
        self._history: list[dict[str, Any]] = []
        self._best_iou = -1.0

    def offer(self, network: Sam4emNet, step: int, seconds: float) -> None:
        """Score a network, and keep it: as the last, and as the best where it is the best so far.

        Args:
            network: plain weights, no adapters.
            step: optimizer steps behind it.
            seconds: training time behind it.
        """
        if not self._regions:
            return
        scores, gallery = self._score(network)
        mean_iou = sum(score.iou for score in scores.values()) / len(scores)
        is_best = mean_iou > self._best_iou
        entry: dict[str, Any] = {"step": step, "minutes": round(seconds / 60, 2), "mean_iou": round(mean_iou, 5)}
        entry["classes"] = {name: asdict(score) for name, score in scores.items()}
        self._history.append({**entry, **self._draw(gallery, scores, is_best=is_best)})
        text = json.dumps(self._history, indent=1)
        write_whole(self._run_dir / SCORES_FILE, lambda place: _write_text(place, text))
        summary = ", ".join(
            f"{name} IoU {score.iou:.4f} Dice {score.dice:.4f} at {score.threshold}" for name, score in scores.items()
        )
        self._say(f"choose slices after step {step}: {summary}")
        if self._board is not None:
            self._board.scores(step, scores)
        self._keep(LAST_FILE, network, scores)
        if is_best:
            self._best_iou = mean_iou
            self._keep(BEST_FILE, network, scores)

    def _score(self, network: Sam4emNet) -> tuple[dict[str, ClassScore], SliceGallery]:
        validation = self._config.validation
        gallery = SliceGallery()
        show = gallery.add if validation.pictures else None
        settings = validation.thresholds, validation.window_offsets
        return score_regions(network, self.header(network, {}), self._regions, *settings, show), gallery

    def _draw(self, gallery: SliceGallery, scores: dict[str, ClassScore], *, is_best: bool) -> dict[str, Any]:
        thresholds = tuple(scores[name].threshold for name in self._config.classes)
        folder = self._run_dir / PICTURES_FOLDER
        slices = gallery.write(folder / "last", thresholds)
        if is_best:
            gallery.write(folder / "best", thresholds)
        return {"slices": slices} if slices else {}

    def finish(self, network: Sam4emNet, step: int, seconds: float) -> Path:
        """Keep the last network, as the best too where nothing chooses, and write the card of the best.

        Args:
            network: the network after the last stage.
            step: optimizer steps of the run.
            seconds: training time of the run.
        """
        path = self._run_dir / BEST_FILE
        scored = self._history[-1]["classes"] if self._history else {}
        self._keep(LAST_FILE, network, {name: ClassScore(**values) for name, values in scored.items()})
        if not self._regions:
            self._keep(BEST_FILE, network, {})
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
            encoder_origin="official" if is_official(config.base) else "trained",
            base_sha256=self.base_sha256,
            base_name=Path(config.base).name if config.base is not None else "",
            stored="delta" if is_official(config.base) else "whole",
            card={**config.card, **{f"iou {name}": f"{score.iou:.4f}" for name, score in scores.items()}},
        )

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        return {"history": json.dumps(self._history), "best_iou": self._best_iou}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._history = json.loads(state["history"])
        self._best_iou = float(state["best_iou"])

    def _keep(self, name: str, network: Sam4emNet, scores: dict[str, ClassScore]) -> None:
        path, header, base = self._run_dir / name, self.header(network, scores), self._config.base
        network.encoder_origin = header.encoder_origin
        try:
            if header.stored == "whole" or base is None:
                save_checkpoint(path, network, header)
            else:
                self._keep_delta(path, network, header, base)
        except CheckpointError as error:
            # Only what the disk refused has a cause; everything else is about the weights.
            if error.__cause__ is None:
                raise
            raise TrainingDiskError(f"{error}; free space, then resume") from error

    def _keep_delta(self, path: Path, network: Sam4emNet, header: CheckpointHeader, base: str) -> None:
        from sam4em_core.delta import save_delta  # noqa: PLC0415 - imports peft's home and sam2's builder

        save_delta(path, network, header, base)
        size = path.stat().st_size
        if size > _DELTA_LIMIT_BYTES:
            self._say(
                f"{path.name} has {size / 1e6:.0f} MB: a stage trained weights of the base themselves (pretrain, full "
                "or polish), and these are stored in full; LoRA stages alone, or a smaller rank, keep it small"
            )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
