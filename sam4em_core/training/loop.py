"""The training loop: stages one after the other, every step logged, every state resumable.

A window draws its random numbers from (seed, step, its place in the step) alone, so a resumed run needs no random
state and repeats the losses of an undisturbed one (CPU, float32, no time limit, same number of threads).
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sam4em_core.errors import DeviceMemoryError
from sam4em_core.model import Sam4emNet
from sam4em_core.training.augment import augment_with_field, margin_voxels
from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.distributed import ALONE, Ranks
from sam4em_core.training.ema import WeightAverage
from sam4em_core.training.errors import TrainingSetupError, TrainingStopped
from sam4em_core.training.fields import decoded
from sam4em_core.training.finetune import finish_stage, parameter_groups, prepare_stage
from sam4em_core.training.forward import Batch, loss_of
from sam4em_core.training.schedule import rate_factor, stage_progress
from sam4em_core.training.settling import patches_of
from sam4em_core.training.speed import compile_network, recompute_encoder
from sam4em_core.unet3d import UNet3d, settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.training.config import StageConfig, TrainingConfig
    from sam4em_core.training.forward import Network
    from sam4em_core.training.report import SilentReporter, StepReporter
    from sam4em_core.training.sampler import WindowSampler

_RANK_STRIDE = 1_000_000_000_039
"""Far above any seed of a step, so that no two processes drop the same prompts."""

_BETAS = (0.9, 0.99)
"""AdamW's decays; 0.99 follows short runs better than its default 0.999."""


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""What counts seconds, by the config's name for it."""


@dataclass
class Progress:
    """How far a run is."""

    stage: int = 0
    """Index of the present stage."""
    stage_step: int = 0
    """Steps done in the present stage."""
    step: int = 0
    """Steps done in all."""
    stage_seconds: float = 0.0
    """Time spent in the present stage, by the config's clock."""
    seconds: float = 0.0
    """Time spent in all, by the config's clock."""


def draw_batch(
    sampler: WindowSampler, config: TrainingConfig, stage: StageConfig, step: int, ranks: Ranks = ALONE
) -> Batch:
    """Draw and vary this process's windows of one step.

    Every window has a random stream of its own, from seed, step and its place in the step: the windows of a step are
    the same for any number of processes.
    """
    margin = margin_voxels(config.augment, stage.crop_voxels)
    origins, images, labels, fields, shares = [], [], [], [], []
    for place in range(ranks.rank, stage.batch_windows, ranks.size):
        rng = np.random.default_rng([config.seed, step, place])
        window = sampler.draw(rng, stage.window_slices, stage.crop_voxels, margin)
        image_THW, labels_TCHW, field_TCHW = augment_with_field(
            window, config.augment, rng, stage.crop_voxels, UNLABELLED
        )
        origins.append(window.origin)
        images.append(image_THW)
        labels.append(labels_TCHW)
        shares.append(window.loss_share)
        if field_TCHW is not None:
            fields.append(decoded(field_TCHW))
    field = torch.stack(fields) if fields else None
    return Batch(tuple(origins), torch.stack(images), torch.stack(labels), torch.tensor(shares), field)


class StageRunner:
    """Trains one stage of a network."""

    def __init__(
        self,
        config: TrainingConfig,
        network: Network,
        sampler: WindowSampler,
        progress: Progress,
        *,
        device: torch.device,
        ranks: Ranks = ALONE,
    ) -> None:
        """Choose the parameters that train and build their optimizer.

        Args:
            config: the run.
            network: the network; LoRA stages add adapters to it.
            sampler: where windows come from.
            progress: how far the run is; moved on by `step`.
            device: where the network is.
            ranks: which process this is.

        Raises:
            TrainingSetupError: LoRA is asked for on a random encoder, the step's windows cannot be shared evenly, or
                the network cannot be compiled here.
        """
        self.config = config
        self.stage = config.stages[progress.stage]
        self.progress = progress
        self.ranks = ranks
        if self.stage.batch_windows % ranks.size:
            raise TrainingSetupError(
                f"stage {self.stage.name}: {self.stage.batch_windows} windows per step cannot be shared by "
                f"{ranks.size} processes; make batch_windows a multiple of {ranks.size}"
            )
        self._device = device
        self._sampler = sampler
        self.start_weights = {name: value.clone() for name, value in network.state_dict().items()}
        # New adapters begin at random: the same whether the stage follows another one or a resumed run begins with it.
        torch.manual_seed(config.seed * 1_000_003 + progress.step)
        self.network = prepare_stage(network, self.stage)
        if isinstance(self.network, Sam4emNet):
            if config.gradient_checkpointing:
                recompute_encoder(self.network)
            if config.compile:
                compile_network(self.network, device)
        groups = parameter_groups(self.network, self.stage)
        self.rates = [float(str(group["lr"])) for group in groups]
        self.optimizer = torch.optim.AdamW(groups, betas=_BETAS)
        self.average = WeightAverage(self.network, config.ema_decay)

    @property
    def is_over(self) -> bool:
        """Whether the stage has done its steps or used up its time."""
        stage = self.stage
        by_steps = self.progress.stage_step >= stage.steps
        return by_steps or (stage.limit_minutes is not None and self.progress.stage_seconds >= 60 * stage.limit_minutes)

    def step(self) -> dict[str, object]:
        """Do one optimizer step.

        Returns:
            A row of the log.

        Raises:
            TrainingStopped: loss or gradient is not a number; the weights are those before the step.
            DeviceMemoryError: the device's memory is full.
        """
        clock = CLOCKS[self.config.clock]
        started = clock()
        progress, stage = self.progress, self.stage
        factor = self._set_rate()
        batch = draw_batch(self._sampler, self.config, stage, progress.step, self.ranks)
        data_seconds = clock() - started
        value, norm = self._find_gradient(batch)
        self.optimizer.step()
        self.average.update(self.network)
        # One clock for all: the rate and the end of a stage may hang on it.
        seconds = self.ranks.first_says(clock() - started)
        progress.step += 1
        progress.stage_step += 1
        progress.seconds += seconds
        progress.stage_seconds += seconds
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

    def _find_gradient(self, batch: Batch) -> tuple[float, float]:
        """Leave the clipped gradient of a batch in the parameters; give the loss and the norm before clipping."""
        stage, place = self.stage, f"stage {self.stage.name}, step {self.progress.step}"
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.optimizer.zero_grad(set_to_none=True)
        try:
            loss = self._forward(batch)
            loss.backward()
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(
                f"{place}: the device's memory is full; lower batch_windows, window_slices or crop_voxels, or set "
                "gradient_checkpointing, in a new run directory"
            ) from error
        self.ranks.add_gradients(parameters)
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, stage.clip_norm))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise TrainingStopped(
                f"{place}: the loss is {value} and the gradient's norm {norm} on the windows "
                f"[{'; '.join(batch.origins)}]{self._whose_windows()}; look at these voxels, or lower learning_rate "
                f"({stage.learning_rate}). The last checkpoint is kept"
            )
        return value, norm

    def _whose_windows(self) -> str:
        ranks = self.ranks
        return f" of process {ranks.rank}, or on those of the other {ranks.size - 1}" if ranks.size > 1 else ""

    def _set_rate(self) -> float:
        progress, stage = self.progress, self.stage
        done = stage_progress(progress.stage_step, stage.steps, progress.stage_seconds / 60, stage.limit_minutes)
        factor = rate_factor(progress.stage_step, done, stage.warmup_steps, stage.final_rate_fraction)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return factor

    def _forward(self, batch: Batch) -> torch.Tensor:
        stage = self.stage
        self.network.train()
        seed = self.config.seed * 1_000_003 + self.progress.step + self.ranks.rank * _RANK_STRIDE
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        return loss_of(self.network, batch, self.config, stage, self._device, generator, self.ranks.pooled)

    def averaged_network(self) -> Network:
        """Give a copy of the network with averaged weights, merged adapters and settled norms."""
        network = copy.deepcopy(self.network)
        if self.config.ema_decay > 0:
            self.average.copy_to(network)
        network = finish_stage(network)
        if isinstance(network, UNet3d):
            patches = patches_of(self._sampler.volumes, network.config)
            settle(network, (patch.to(self._device) for patch in patches))
        return network

    def state_dict(self) -> dict[str, object]:
        """Give what a resumed run needs to go on with this stage."""
        frozen = {name for name, parameter in self.network.named_parameters() if not parameter.requires_grad}
        return {
            "network": {name: v for name, v in self.network.state_dict().items() if name not in frozen},
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Take up a saved stage."""
        self.network.load_state_dict(state["network"], strict=False)
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])


def run_stage(
    runner: StageRunner,
    report: StepReporter | SilentReporter,
    *,
    save: Callable[[StageRunner], None],
    validate: Callable[[StageRunner], None],
) -> Network:
    """Train one stage to its end.

    Args:
        runner: the stage.
        report: shows and logs steps.
        save: writes a state to resume from.
        validate: scores the averaged weights and keeps the best.

    Returns:
        The network with averaged weights and merged adapters.
    """
    every = runner.config.validation.every_steps
    while not runner.is_over:
        report.step(runner.step())
        done = runner.progress.stage_step
        if runner.is_over or done % every == 0:
            validate(runner)
        elif done % runner.config.checkpoint_every_steps == 0:
            save(runner)
    return runner.averaged_network()
