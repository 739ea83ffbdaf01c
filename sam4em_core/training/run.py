"""A whole training run: volumes in, the path of the best checkpoint out.

    1. check the volumes and bring their train ranges to the working lattice
    2. build the network, or take it from the base checkpoint
    3. take up the state of an earlier process, when asked to
    4. run the stages; validate and write a state at intervals
    5. write best.safetensors and the model card

What the files of a run directory hold stands in `loop`.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sam4em_core.config import ModelConfig
from sam4em_core.model import build_model
from sam4em_core.segmenter import chosen_device
from sam4em_core.training.data import check_classes, check_volume, to_working_lattice
from sam4em_core.training.errors import TrainingDiskError, TrainingSetupError
from sam4em_core.training.loop import Progress, StageRunner, run_stage
from sam4em_core.training.report import StepReporter
from sam4em_core.training.sampler import WindowSampler
from sam4em_core.training.shipping import BestModel, load_base
from sam4em_core.training.state import StepLog, load_state, save_state, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam4em_core.model import Sam4emNet
    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume

logger = logging.getLogger(__name__)

STATE_FILE = "state.pt"
CONFIG_FILE = "config.json"
LOG_FILE = "log.csv"


def train(config: TrainingConfig, volumes: Sequence[TrainingVolume], run_dir: Path, *, resume: bool = False) -> Path:
    """Train a model.

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
    for volume in volumes:
        check_volume(volume, config.classes)
    working = [to_working_lattice(v, config.voxel_size_zyx_nm) for v in volumes if v.train is not None]
    check_classes(working, config.classes)
    sampler = WindowSampler(working, config.sampling)
    _open_run(config, run_dir, resume=resume)
    torch.manual_seed(config.seed)
    network = _start_network(config).to(chosen_device(config.device))
    best = BestModel(config, list(volumes), run_dir, lambda text: logger.info("%s", text))
    run = _Run(config, run_dir, sampler, best)
    return run.finish(run.go(network, resume=resume))


class _Run:
    """The stages of one run."""

    def __init__(self, config: TrainingConfig, run_dir: Path, sampler: WindowSampler, best: BestModel) -> None:
        self._config = config
        self._run_dir = run_dir
        self._sampler = sampler
        self._best = best
        self._progress = Progress()

    def go(self, network: Sam4emNet, *, resume: bool) -> Sam4emNet:
        """Run all stages that are left; give the network after the last one."""
        saved = self._take_up(network) if resume else None
        log = StepLog(self._run_dir / LOG_FILE, self._progress.step)
        with StepReporter(log, self._config.total_steps, self._progress.step) as report:
            while self._progress.stage < len(self._config.stages):
                device = torch.device(chosen_device(self._config.device))
                runner = StageRunner(self._config, network, self._sampler, self._progress, device=device)
                if saved is not None:
                    runner.load_state_dict(saved)
                    saved = None
                network = run_stage(runner, report, save=self._save, validate=self._validate)
                self._progress.stage += 1
                self._progress.stage_step, self._progress.stage_seconds = 0, 0.0
                self._save_between(network)
        return network

    def finish(self, network: Sam4emNet) -> Path:
        """Write the card, and the last weights as best where no volume could choose."""
        return self._best.finish(network, self._progress.step, self._progress.seconds)

    def _take_up(self, network: Sam4emNet) -> dict[str, Any] | None:
        """Read the state; give the part of a stage that was cut off, if one was."""
        state = load_state(self._run_dir / STATE_FILE)
        self._progress = Progress(**state["progress"])
        self._best.load_state_dict(state["best"])
        network.load_state_dict(state["plain"])
        network.encoder_origin = str(state["encoder_origin"])
        within: dict[str, Any] | None = state["within"]
        return within

    def _save(self, runner: StageRunner) -> None:
        self._write(runner.start_weights, runner.network.encoder_origin, runner.state_dict())

    def _save_between(self, network: Sam4emNet) -> None:
        self._write(network.state_dict(), network.encoder_origin, None)

    def _write(self, plain: dict[str, torch.Tensor], origin: str, within: dict[str, object] | None) -> None:
        """Write the state: the plain network the stage began with, and how far the stage is."""
        state = {
            "progress": asdict(self._progress),
            "best": self._best.state_dict(),
            "plain": plain,
            "encoder_origin": origin,
            "within": within,
        }
        save_state(self._run_dir / STATE_FILE, state)

    def _validate(self, runner: StageRunner) -> None:
        self._best.offer(runner.averaged_network(), runner.progress.step, runner.progress.seconds)
        self._save(runner)


def config_digest(config: TrainingConfig) -> str:
    """Digest of everything that changes the result, as 64 hex digits."""
    values = config.model_dump(mode="json", exclude={"card"})
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _open_run(config: TrainingConfig, run_dir: Path, *, resume: bool) -> None:
    """Make the run directory, or check that the one to resume belongs to this config."""
    path = run_dir / CONFIG_FILE
    digest = config_digest(config)
    if resume:
        _check_resumable(config, run_dir, digest)
        return
    if (run_dir / LOG_FILE).exists():
        raise TrainingSetupError(
            f"the run directory {run_dir} holds a run already; resume it, or choose another directory"
        )
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingDiskError(f"making the run directory {run_dir}: {error}") from error
    document = {"digest": digest, "config": config.model_dump(mode="json")}
    write_whole(path, lambda place: _write_text(place, json.dumps(document, indent=2)))


def _check_resumable(config: TrainingConfig, run_dir: Path, digest: str) -> None:
    path = run_dir / CONFIG_FILE
    if not path.exists() or not (run_dir / STATE_FILE).exists():
        raise TrainingSetupError(f"there is no state in {run_dir} to resume; start without resume")
    stored = json.loads(path.read_text())
    if stored["digest"] != digest:
        now, then = config.model_dump(mode="json"), stored["config"]
        changed = sorted(key for key in now if key != "card" and now[key] != then.get(key))
        raise TrainingSetupError(
            f"resuming {run_dir}: the config has changed in {', '.join(changed) or 'keys that are gone'}; "
            "put it back, or start a new run directory"
        )


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _start_network(config: TrainingConfig) -> Sam4emNet:
    """Build the network from the base, or from random weights."""
    model = ModelConfig.of({**config.model, "num_classes": len(config.classes)})
    if config.base is None:
        return build_model(model)
    return load_base(Path(config.base), model)
