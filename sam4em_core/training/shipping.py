"""From a network in training to a file that segments: the base it starts from, and the best that is kept."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam4em_core.checkpoint import save_checkpoint, save_unet
from sam4em_core.errors import CheckpointError
from sam4em_core.header import CheckpointHeader, Normalization, UnetHeader, sha256_of
from sam4em_core.training.card import write_card
from sam4em_core.training.data import GREY_FRACTIONS
from sam4em_core.training.errors import TrainingDiskError
from sam4em_core.training.pictures import SliceGallery
from sam4em_core.training.scores import ClassScore
from sam4em_core.training.starting import is_official
from sam4em_core.training.state import write_whole
from sam4em_core.training.validate import choose_region, score_field_regions, score_regions
from sam4em_core.unet3d import UNet3d

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.model import Sam4emNet
    from sam4em_core.training.board import Board
    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume
    from sam4em_core.training.forward import Network

BEST_FILE = "best.safetensors"
LAST_FILE = "last.safetensors"
PICTURES_FOLDER = "pictures"
CARD_FILE = "best.md"
SCORES_FILE = "scores.json"


_DELTA_LIMIT_BYTES = 32_000_000
"""What training adds to an official base is meant to stay below this."""


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

    def offer(self, network: Network, step: int, seconds: float) -> None:
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

    def _score(self, network: Network) -> tuple[dict[str, ClassScore], SliceGallery]:
        validation = self._config.validation
        gallery = SliceGallery()
        show = gallery.add if validation.pictures else None
        if isinstance(network, UNet3d):
            return score_field_regions(network, self._config.classes, self._regions, show), gallery
        settings = validation.thresholds, validation.window_offsets
        return score_regions(network, self.header(network, {}), self._regions, *settings, show), gallery

    def _draw(self, gallery: SliceGallery, scores: dict[str, ClassScore], *, is_best: bool) -> dict[str, Any]:
        thresholds = tuple(scores[name].threshold for name in self._config.classes)
        folder = self._run_dir / PICTURES_FOLDER
        slices = gallery.write(folder / "last", thresholds)
        if is_best:
            gallery.write(folder / "best", thresholds)
        return {"slices": slices} if slices else {}

    def finish(self, network: Network, step: int, seconds: float) -> Path:
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
            card=self._card(scores),
        )

    def unet_header(self, network: UNet3d, scores: dict[str, ClassScore]) -> UnetHeader:
        """Describe a U-Net."""
        config = self._config
        return UnetHeader(
            name=config.name,
            unet=network.config,
            classes=config.classes,
            accepted_voxel_size_nm=config.voxel_size_range_nm,
            normalization=Normalization(low=100 * GREY_FRACTIONS[0], high=100 * GREY_FRACTIONS[1]),
            base_sha256=self.base_sha256,
            base_name=Path(config.base).name if config.base is not None else "",
            card=self._card(scores),
        )

    def _card(self, scores: dict[str, ClassScore]) -> dict[str, str]:
        return {**self._config.card, **{f"iou {name}": f"{score.iou:.4f}" for name, score in scores.items()}}

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed run needs."""
        return {"history": json.dumps(self._history), "best_iou": self._best_iou}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self._history = json.loads(state["history"])
        self._best_iou = float(state["best_iou"])

    def _keep(self, name: str, network: Network, scores: dict[str, ClassScore]) -> None:
        path, base = self._run_dir / name, self._config.base
        try:
            if isinstance(network, UNet3d):
                save_unet(path, network, self.unet_header(network, scores))
                return
            header = self.header(network, scores)
            network.encoder_origin = header.encoder_origin
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
