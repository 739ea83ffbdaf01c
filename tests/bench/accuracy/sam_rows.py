"""Rows of our own network: a base that fits the variant, the core's training, and three ways to read out a memory."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Literal

import torch

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.memory_volume import MemoryState
from sam4em_core.model import Sam4emNet, StepOutput, build_model, count_parameters
from sam4em_core.training import TrainingConfig, train
from sam4em_core.training.shipping import BEST_FILE
from sam4em_core.training.state import read_log
from sam4em_core.training.transfer import BaseShare, take_over
from sam4em_core.training.validate import predict_region

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from recipes import Recipe
    from sets import BenchSet

    from sam4em_core.encoder import SliceFeatures
    from sam4em_core.training.validate import ChooseRegion

STATE_FILE = "state.pt"
LOG_FILE = "log.csv"


def train_sam(recipe: Recipe, data: BenchSet, folder: Path) -> dict[str, Any]:
    """Train, or go on where a killed process stopped.

    Args:
        recipe: of the row.
        data: the set.
        folder: work folder; takes the run and its best checkpoint.

    Returns:
        What the row's result says of the start of the weights.
    """
    values, start = dict(recipe.training), {"from": "random weights"}
    if recipe.base is not None:
        values["base"] = str(recipe.base)
        model = ModelConfig.of({**values["model"], "num_classes": len(values["classes"])})
        start = describe_share(share_of(recipe.base, model, tuple(values["classes"])), recipe.base.stem)
    train(TrainingConfig(**values), data.training, folder, resume=(folder / STATE_FILE).exists())
    return start


def share_of(base: Path, model: ModelConfig, classes: tuple[str, ...]) -> BaseShare:
    """Say what a network takes over from a base."""
    loaded = load_checkpoint(base)
    return take_over(build_model(model), classes, loaded.network, loaded.header.classes)


def describe_share(share: BaseShare, base: str) -> dict[str, Any]:
    """Plain values of a base's share; tensors left out are named by their module."""
    return {
        "from": base,
        "tensors_from_base": len(share.taken),
        "tensors_random": list(share.random),
        "modules_of_base_left_out": sorted({".".join(name.split(".")[:2]) for name in share.left_out}),
    }


class OneDirection(Sam4emNet):
    """A network whose -z pass repeats the logits of its +z pass, so that the mean of both is the +z pass alone.

    Inference steps up and then down over the same encoded slices; the first pass is remembered by slice.
    """

    def __init__(self, network: Sam4emNet) -> None:
        super().__init__(network.config)
        self.load_state_dict(network.state_dict())
        self._upward = False
        self._seen: dict[int, StepOutput] = {}

    def initial_state(self, streams: int, height: int, width: int, device: torch.device | str = "cpu") -> MemoryState:
        """Begin a pass; every other one goes up."""
        self._upward = not self._upward
        if self._upward:
            self._seen.clear()
        return super().initial_state(streams, height, width, device)

    def step(self, features: SliceFeatures, state: MemoryState, **drops: Any) -> StepOutput:
        """Segment a slice on the way up; give the same again on the way down."""
        if self._upward:
            self._seen[id(features)] = super().step(features, state, **drops)
        elif id(features) not in self._seen:
            # A warm-up slice above the window: no logits of it are wanted.
            return StepOutput(features.embedding_BChw, features.embedding_BChw, state)
        return self._seen[id(features)]


def sam_predictor(
    folder: Path, reading: Literal["both", "up", "slices"], device: str
) -> tuple[Callable[[ChooseRegion], npt.NDArray[np.float32]], int]:
    """Load the best weights of a work folder.

    Args:
        folder: work folder of the row that trained.
        reading: how the memory is used.
        device: `cpu` or `cuda`.

    Returns:
        What turns a region into probabilities, and the number of parameters.
    """
    loaded = load_checkpoint(folder / BEST_FILE, device)
    network, header = loaded.network, loaded.header
    if reading == "slices":
        header = header.model_copy(update={"window_slices": 1, "warm_up_slices": 0})
    if reading == "up":
        network = OneDirection(network).to(device).eval()

    def predict(region: ChooseRegion) -> npt.NDArray[np.float32]:
        return predict_region(network, header, region)

    return predict, count_parameters(loaded.network)


def training_summary(folder: Path) -> dict[str, Any]:
    """Summarize a training log: steps, seconds, speed, share of data loading, losses at both ends."""
    rows = read_log(folder / LOG_FILE)
    seconds = float(rows[-1]["elapsed_s"])
    durations = _durations(rows)
    data_s = sum(float(row["data_fraction"]) * duration for row, duration in zip(rows, durations, strict=True))
    windows = sum(float(row["windows_per_s"]) * duration for row, duration in zip(rows, durations, strict=True))
    edge = max(1, len(rows) // 10)
    losses = [float(row["loss"]) for row in rows]
    return {
        "steps": len(rows),
        "seconds": seconds,
        "windows": round(windows),
        "windows_per_s": windows / seconds,
        "data_fraction": data_s / seconds,
        "loss_first_tenth": sum(losses[:edge]) / edge,
        "loss_last_tenth": sum(losses[-edge:]) / edge,
    }


def _durations(rows: list[dict[str, str]]) -> list[float]:
    ends = [0.0, *(float(row["elapsed_s"]) for row in rows)]
    return [max(0.0, after - before) for before, after in itertools.pairwise(ends)]
