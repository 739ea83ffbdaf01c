"""The peers: MONAI networks trained with the core's own windows, variation, loss, schedule and running mean.

work folder
    log.csv      one row per step, as the core writes it
    state.pt     what a killed process resumes from
    best.pt      the averaged weights that scored best on the choose slices
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sam4em_core.tiles import TileAxis, reflected
from sam4em_core.training import TrainingConfig
from sam4em_core.training.data import UNLABELLED, check_classes, check_volume, to_working_lattice
from sam4em_core.training.ema import WeightAverage
from sam4em_core.training.errors import TrainingStopped
from sam4em_core.training.loop import CLOCKS, Progress, draw_batch
from sam4em_core.training.losses import masked_bce, masked_soft_dice
from sam4em_core.training.resample import resample_float
from sam4em_core.training.sampler import WindowSampler
from sam4em_core.training.schedule import rate_factor, stage_progress
from sam4em_core.training.scores import OverlapCounts, best_threshold, count_overlap
from sam4em_core.training.speed import forward_precision
from sam4em_core.training.state import StepLog, load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from recipes import Recipe
    from sets import BenchSet

    from sam4em_core.training.loop import Batch
    from sam4em_core.training.validate import ChooseRegion

STATE_FILE = "state.pt"
BEST_FILE = "best.pt"
LOG_FILE = "log.csv"
_BETAS = (0.9, 0.99)
"""As in `sam4em_core.training.loop`."""
_OVERLAP = 32
"""Overlap of tiles in the plane, voxels: as the shipped models have."""
_SAVE_EVERY_S = 30.0
START_LOGIT = -2.0
"""As in `sam4em_core.decoder`: a structure covers a tenth of the voxels or less."""

logger = logging.getLogger(__name__)


def build_peer(network: dict[str, Any], num_classes: int, seed: int) -> nn.Module:
    """Build MONAI's DynUNet with random weights and GroupNorm (8 groups)."""
    from monai.networks.nets.dynunet import DynUNet

    torch.manual_seed(seed)
    kernel = [3] * network["dimensions"]
    net: nn.Module = DynUNet(
        spatial_dims=network["dimensions"],
        in_channels=1,
        out_channels=num_classes,
        kernel_size=[kernel] * len(network["filters"]),
        strides=network["strides"],
        upsample_kernel_size=network["strides"][1:],
        filters=network["filters"],
        norm_name=("GROUP", {"num_groups": 8}),
    )
    bias = net.get_submodule("output_block.conv.conv").bias
    nn.init.constant_(bias, START_LOGIT)  # type: ignore[arg-type]
    return net


class PeerTraining:
    """One stage of training of a peer."""

    def __init__(self, recipe: Recipe, data: BenchSet, regions: Sequence[ChooseRegion], folder: Path) -> None:
        """Prepare windows, network and optimizer, and take up the state of a killed process.

        Args:
            recipe: of the row.
            data: the set.
            regions: choose slices.
            folder: work folder.
        """
        self.config = TrainingConfig(**recipe.training)
        self._stage = self.config.stages[0]
        self._recipe, self._regions, self._folder = recipe, regions, folder
        torch.set_num_threads(self.config.threads)
        for volume in data.training:
            check_volume(volume, self.config.classes)
        working = [to_working_lattice(v, self.config.voxel_size_zyx_nm) for v in data.training if v.train is not None]
        check_classes(working, self.config.classes)
        self._sampler = WindowSampler(working, self.config.sampling)
        self._device = torch.device(self.config.device)
        net = build_peer(recipe.network, len(self.config.classes), self.config.seed)
        self.network = net.to(self._device)
        self._optimizer = torch.optim.AdamW(_groups(net, self._stage.weight_decay), self._stage.learning_rate, _BETAS)
        self._average = WeightAverage(net, self.config.ema_decay)
        self._progress = Progress()
        self._history: list[dict[str, Any]] = []
        if (folder / STATE_FILE).exists():
            self._take_up(load_state(folder / STATE_FILE))
        self._log = StepLog(folder / LOG_FILE, self._progress.step)

    def run(self) -> list[dict[str, Any]]:
        """Train to the end of the minutes.

        Returns:
            Scores on the choose slices, in the order in which they were taken.

        Raises:
            TrainingStopped: the loss is not a number.
        """
        saved = time.monotonic()
        while len(self._history) < self._recipe.peer_checks:
            if self._share() < (len(self._history) + 1) / self._recipe.peer_checks:
                self._log.append(self._step())
                if time.monotonic() - saved > _SAVE_EVERY_S:
                    self._save()
                    saved = time.monotonic()
            else:
                self._check()
                self._save()
        return self._history

    def _share(self) -> float:
        stage, progress = self._stage, self._progress
        return stage_progress(progress.step, stage.steps, progress.seconds / 60, stage.limit_minutes)

    def _step(self) -> dict[str, object]:
        clock = CLOCKS[self.config.clock]
        started = clock()
        stage, progress = self._stage, self._progress
        factor = rate_factor(progress.step, self._share(), stage.warmup_steps, stage.final_rate_fraction)
        for group in self._optimizer.param_groups:
            group["lr"] = stage.learning_rate * factor
        batch = draw_batch(self._sampler, self.config, stage, progress.step)
        data_seconds = clock() - started
        loss = self._loss(batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), stage.clip_norm))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingStopped(f"step {progress.step}: the loss is {value} on {'; '.join(batch.origins)}")
        self._optimizer.step()
        self._average.update(self.network)
        seconds = clock() - started
        progress.step += 1
        progress.seconds += seconds
        return {
            "step": progress.step - 1,
            "stage": stage.name,
            "loss": f"{value:.6f}",
            "learning_rate": f"{stage.learning_rate * factor:.3e}",
            "grad_norm": f"{norm:.4f}",
            "windows_per_s": f"{stage.batch_windows / seconds:.3f}",
            "data_fraction": f"{data_seconds / seconds:.3f}",
            "elapsed_s": f"{progress.seconds:.1f}",
        }

    def _loss(self, batch: Batch) -> torch.Tensor:
        return self._supervised(self._logits(self.network, batch), batch)

    def _logits(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        network.train()
        image_BTHW = batch.image_BTHW.to(self._device)
        with forward_precision(self.config.dtype, self._device):
            return windows_forward(network, image_BTHW, self._recipe.network["dimensions"])

    def _supervised(self, logits_BTCHW: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Half cross entropy, half Dice: the core's loss of one decoder."""
        labels = batch.labels_BTCHW.to(self._device)
        labelled, target = (labels != UNLABELLED).float(), (labels == 1).float()
        logits, weights = logits_BTCHW.float(), self.config.loss
        dice = masked_soft_dice(logits, target, labelled, weights.dice_smoothing_voxels)
        return weights.bce_weight * masked_bce(logits, target, labelled) + weights.dice_weight * dice

    def _check(self) -> None:
        """Score the averaged weights on the choose slices, and keep them where they are the best so far."""
        network = copy.deepcopy(self.network)
        self._average.copy_to(network)
        network.eval()
        iou = choose_iou(network, self._recipe, self._regions, self.config)
        if iou >= max((entry["mean_iou"] for entry in self._history), default=0.0):
            save_state(self._folder / BEST_FILE, {"network": network.state_dict()})
        self._history.append({"step": self._progress.step, "mean_iou": round(iou, 5)})
        logger.info("choose slices after step %d: mean IoU %.4f", self._progress.step, iou)

    def _save(self) -> None:
        progress = self._progress
        state = {
            "step": progress.step,
            "seconds": progress.seconds,
            "history": json.dumps(self._history),
            "network": self.network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        save_state(self._folder / STATE_FILE, state)

    def _take_up(self, state: dict[str, Any]) -> None:
        self._progress = Progress(step=int(state["step"]), seconds=float(state["seconds"]))
        self._history = json.loads(state["history"])
        self.network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])


def _groups(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Vectors are not decayed, as in the core."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def windows_forward(network: nn.Module, image_BTHW: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Logits (B, T, C, H, W) of windows; a network of two dimensions sees every slice by itself."""
    if dimensions == 3:
        logits_BCTHW: torch.Tensor = network(image_BTHW[:, None])
        return logits_BCTHW.transpose(1, 2)
    logits: torch.Tensor = network(image_BTHW.flatten(0, 1)[:, None])
    return logits.unflatten(0, image_BTHW.shape[:2])


def choose_iou(network: nn.Module, recipe: Recipe, regions: Sequence[ChooseRegion], config: TrainingConfig) -> float:
    """Mean IoU over the classes at their best thresholds, counted over all regions, as the core chooses weights."""
    thresholds = config.validation.thresholds
    counts = [[OverlapCounts()] * len(thresholds) for _ in config.classes]
    for region in regions:
        for index, probability in enumerate(predict_peer(network, recipe.network, region)):
            counts[index] = [
                total + count_overlap(probability, region.truth_czyx[index], threshold, UNLABELLED)
                for total, threshold in zip(counts[index], thresholds, strict=True)
            ]
    return sum(best_threshold(thresholds, per_class).iou for per_class in counts) / len(counts)


def axis_of(extent: int, side: int, overlap: int) -> TileAxis:
    """Tiles of one side along an axis, the last one reaching beyond the end."""
    count = max(1, -(-(extent - overlap) // (side - overlap)))
    return TileAxis(extent, count, side, side - overlap if count > 1 else side)


@torch.inference_mode()
def predict_peer(network: nn.Module, settings: dict[str, Any], region: ChooseRegion) -> npt.NDArray[np.float32]:
    """Predict a region with overlapping, blended tiles, at the truth's voxels; shape (c, z, y, x).

    Tiles reach into the context slices; beyond the image they are reflected, as the core's are.
    """
    device = next(network.parameters()).device
    shape = region.image_zyx.shape
    depth, side = settings["tile"]
    axes = (axis_of(shape[0], depth, depth // 4), *(axis_of(extent, side, _OVERLAP) for extent in shape[1:]))
    working = np.zeros((region.truth_czyx.shape[0], *shape), dtype=np.float32)
    wanted = axes[0].touching(region.context_below, region.context_below + region.num_slices)
    for place in itertools.product(wanted, *(range(axis.count) for axis in axes[1:])):
        rows = [reflected(axis.span(tile), (0, extent)) for axis, tile, extent in zip(axes, place, shape, strict=True)]
        image = torch.from_numpy(region.image_zyx[np.ix_(*rows)]).to(device)
        logits_TCHW = windows_forward(network, image[None], settings["dimensions"])[0]
        _add(working, logits_TCHW.transpose(0, 1).float().sigmoid().cpu().numpy(), axes, place)
    kept = working[:, region.context_below : region.context_below + region.num_slices]
    z, y, x = (int(extent) for extent in region.truth_czyx.shape[1:])
    source, target = region.working_zyx_nm, region.source_zyx_nm
    return np.stack([resample_float(channel, source, target, (z, y, x), region.lead_z_nm) for channel in kept])


def _add(
    sums_czyx: npt.NDArray[np.float32],
    tile_czyx: npt.NDArray[np.float32],
    axes: tuple[TileAxis, ...],
    place: tuple[int, ...],
) -> None:
    """Add one tile with its ramps, where the image is."""
    into, weight = [], np.ones(1, dtype=np.float32)
    for axis, tile in zip(axes, place, strict=True):
        start, stop = axis.span(tile)
        stop = min(stop, axis.extent)
        into.append(slice(start, stop))
        weight = weight[..., None] * axis.ramp(tile)[: stop - start]
    inside = tuple(slice(0, part.stop - part.start) for part in into)
    sums_czyx[(slice(None), *into)] += tile_czyx[(slice(None), *inside)] * weight[0]
