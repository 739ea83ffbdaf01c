"""A whole training run: volumes in, the path of the best checkpoint out.

    1. join the other processes, where torchrun started several
    2. check the volumes and bring their train ranges to the working lattice
    3. build the network, or take it from the base checkpoint; add the signed distances that it needs to the volumes
    4. take up the state of an earlier process, when asked to
    5. run the stages; validate and write a state at intervals
    6. write best.safetensors and the model card

What the files of a run directory hold stands in `rundir`. Only the first process writes any of them.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from sam4em_core.header import sha256_of
from sam4em_core.lora import LoraUpdate, merged_updates, set_merged_updates
from sam4em_core.segmenter import chosen_device
from sam4em_core.training.board import Board
from sam4em_core.training.data import check_choosable, check_classes, check_cubes, check_volume, to_working_lattice
from sam4em_core.training.distributed import Ranks, process_group
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.fields import with_predicted_field, with_true_field
from sam4em_core.training.loop import Progress, StageRunner, run_stage
from sam4em_core.training.parting import with_faces_outside
from sam4em_core.training.provenance import check_apart, describe_origin
from sam4em_core.training.report import SilentReporter, StepReporter
from sam4em_core.training.rundir import BOARD_FOLDER, LOG_FILE, STATE_FILE, check_resumable, config_digest, open_run
from sam4em_core.training.sampler import WindowSampler
from sam4em_core.training.shipping import BEST_FILE, BestModel
from sam4em_core.training.starting import start_network
from sam4em_core.training.state import StepLog, load_state, save_state
from sam4em_core.unet3d import UNet3d

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume, WorkingVolume
    from sam4em_core.training.forward import Network

__all__ = ["STATE_FILE", "config_digest", "train"]

logger = logging.getLogger(__name__)


def train(config: TrainingConfig, volumes: Sequence[TrainingVolume], run_dir: Path, *, resume: bool = False) -> Path:
    """Train a model; under torchrun, together with the other processes.

    Args:
        config: the run.
        volumes: images with truth; their label channels are in the order of `config.classes`.
        run_dir: where everything is written; new, unless `resume`.
        resume: go on from the state in `run_dir`; a finished run returns at once.

    Returns:
        The checkpoint that scored best on the choose slices, or the last one where nothing chooses.

    Raises:
        TrainingSetupError: config, volumes or run directory do not fit.
        TrainingStopped: the loss is not a number.
        TrainingDiskError: the run directory cannot be written.
        CheckpointError: the base, or the state to resume from, is unreadable.
        CoreConfigError: the device is not here.
    """
    torch.set_num_threads(config.threads)
    taught, working = prepare_volumes(config, volumes)
    with process_group(chosen_device(config.device)) as ranks:
        if ranks.is_first:
            files = (config.base, config.sdf, config.memory_base)
            origin = describe_origin(volumes, *(sha256_of(path) if path is not None else "" for path in files))
            (check_resumable if resume else open_run)(config, run_dir, origin)
        ranks.wait()
        torch.manual_seed(config.seed)
        network = start_network(config).to(ranks.device)
        sampler = WindowSampler(with_fields(config, network, working, volumes), config.sampling)
        run = _Run(config, run_dir, sampler, taught, ranks)
        return run.finish(run.go(network, resume=resume))


def prepare_volumes(
    config: TrainingConfig, volumes: Sequence[TrainingVolume]
) -> tuple[list[TrainingVolume], list[WorkingVolume]]:
    """Check the volumes, and bring what trains to the working lattice.

    Returns:
        The volumes with the labels that are taught and chosen by (a U-Net has to part objects that touch), and those
        of them that train on the working lattice.

    Raises:
        TrainingSetupError: the volumes do not fit the config or each other.
    """
    for volume in volumes:
        check_volume(volume, config.classes)
    check_apart(volumes)
    if config.sampling.other_axes_fraction > 0:
        check_cubes(volumes)
    taught = list(volumes)
    if config.target == "sdf":
        taught = [with_faces_outside(volume, min(config.voxel_size_zyx_nm)) for volume in volumes]
    working = [to_working_lattice(v, config.voxel_size_zyx_nm) for v in taught if v.train is not None]
    if not working:
        raise TrainingSetupError("no volume has a train range; give at least one")
    check_classes(working, config.classes)
    absent = check_choosable(volumes, config.classes)
    if absent:
        logger.warning("no choose slice holds %s: the thresholds of these classes mean nothing", ", ".join(absent))
    return taught, working


def with_fields(
    config: TrainingConfig, network: Network, working: list[WorkingVolume], volumes: Sequence[TrainingVolume]
) -> list[WorkingVolume]:
    """Add the signed distances that training needs: the truth's for a U-Net, the U-Net's for the network around it.

    Args:
        config: the run.
        network: what is trained.
        working: what trains, on the working lattice.
        volumes: all volumes, in the same order.
    """
    size = config.voxel_size_zyx_nm
    if isinstance(network, UNet3d):
        sources = [volume for volume in volumes if volume.train is not None]
        tau = network.config.tau_nm
        return [with_true_field(w, volume, size, tau) for w, volume in zip(working, sources, strict=True)]
    if network.unet is None:
        return working
    unet = network.unet.eval()
    return [with_predicted_field(volume, unet, size) for volume in working]


class _Run:
    """The stages of one run."""

    def __init__(
        self,
        config: TrainingConfig,
        run_dir: Path,
        sampler: WindowSampler,
        volumes: Sequence[TrainingVolume],
        ranks: Ranks,
    ) -> None:
        self._config = config
        self._run_dir = run_dir
        self._sampler = sampler
        self._volumes = volumes
        self._ranks = ranks
        self._progress = Progress()
        self._best: BestModel | None = None

    def go(self, network: Network, *, resume: bool) -> Network:
        """Run all stages that are left; give the network after the last one."""
        state = load_state(self._run_dir / STATE_FILE) if resume else None
        saved = self._take_up(network, state) if state is not None else None
        with self._reporter(state) as report:
            while self._progress.stage < len(self._config.stages):
                device = torch.device(self._ranks.device)
                runner = StageRunner(
                    self._config, network, self._sampler, self._progress, device=device, ranks=self._ranks
                )
                if saved is not None:
                    runner.load_state_dict(saved)
                    saved = None
                network = run_stage(runner, report, save=self._save, validate=self._validate)
                _mark_trained(network, runner)
                self._progress.stage += 1
                self._progress.stage_step, self._progress.stage_seconds = 0, 0.0
                self._write(network.state_dict(), network, None)
        return network

    def finish(self, network: Network) -> Path:
        """Write the last weights and the card; the last are the best where no volume could choose."""
        if self._best is not None:
            self._best.finish(network, self._progress.step, self._progress.seconds)
        self._ranks.wait()
        return self._run_dir / BEST_FILE

    def _reporter(self, state: dict[str, Any] | None) -> StepReporter | SilentReporter:
        """Open log, curves and scores, in the first process."""
        if not self._ranks.is_first:
            return SilentReporter()
        done = self._progress.step
        board = Board(self._run_dir / BOARD_FOLDER, done, enabled=self._config.tensorboard)
        self._best = BestModel(
            self._config, list(self._volumes), self._run_dir, lambda text: logger.info("%s", text), board
        )
        if state is not None:
            self._best.load_state_dict(state["best"])
        log = StepLog(self._run_dir / LOG_FILE, done)
        return StepReporter(log, self._config.total_steps, done, board)

    def _take_up(self, network: Network, state: dict[str, Any]) -> dict[str, Any] | None:
        """Put a state into the network; give the part of a stage that was cut off, if one was."""
        self._progress = Progress(**state["progress"])
        network.load_state_dict(state["plain"])
        network.encoder_origin = str(state["encoder_origin"])
        set_merged_updates(network, {layer: LoraUpdate(**parts) for layer, parts in state["updates"].items()})
        within: dict[str, Any] | None = state["within"]
        return within

    def _save(self, runner: StageRunner) -> None:
        self._write(runner.start_weights, runner.network, runner.state_dict())

    def _write(self, plain: dict[str, torch.Tensor], network: Network, within: dict[str, object] | None) -> None:
        """Write the state: the plain network the stage began with, and how far the stage is."""
        if self._best is None:
            return
        updates = {layer: {"down": u.down, "up": u.up} for layer, u in merged_updates(network).items()}
        state = {
            "progress": asdict(self._progress),
            "best": self._best.state_dict(),
            "plain": plain,
            "updates": updates,
            "encoder_origin": network.encoder_origin,
            "within": within,
        }
        save_state(self._run_dir / STATE_FILE, state)

    def _validate(self, runner: StageRunner) -> None:
        if self._best is not None:
            self._best.offer(runner.averaged_network(), runner.progress.step, runner.progress.seconds)
            self._save(runner)


def _mark_trained(network: Network, runner: StageRunner) -> None:
    """A stage that trained the whole encoder makes it fit for LoRA."""
    stage = runner.stage
    if stage.recipe in ("pretrain", "full") and stage.encoder_rate_fraction > 0:
        network.encoder_origin = "trained"
