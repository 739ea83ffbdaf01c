import json

import pytest
import torch

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.errors import CoreConfigError
from sam4em_core.training import run as run_module
from sam4em_core.training import train
from sam4em_core.training.errors import TrainingSetupError, TrainingStopped
from sam4em_core.training.loop import StageRunner
from sam4em_core.training.state import read_log


class KilledError(Exception):
    """Stands in for the signal that ends a process."""


def losses(run_dir):
    return [row["loss"] for row in read_log(run_dir / "log.csv")]


def kill_at(monkeypatch, step):
    whole = StageRunner.step

    def step_or_die(self):
        if self.progress.step == step:
            raise KilledError
        return whole(self)

    monkeypatch.setattr(StageRunner, "step", step_or_die)


def test_writes_a_scored_checkpoint_that_loads(tmp_path, make_config, make_volume):
    best = train(make_config(), [make_volume()], tmp_path)

    header = load_checkpoint(best).header
    assert header.classes == ("mitochondrion",)
    assert header.thresholds[0] in (0.3, 0.5, 0.7)
    assert header.encoder_origin == "trained"
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores[-1]["step"] == 4
    assert len(losses(tmp_path)) == 4


def test_killed_and_resumed_repeats_the_losses(tmp_path, make_config, make_volume, monkeypatch):
    config = make_config(stage={"steps": 5}, validation={"every_steps": 3, "thresholds": [0.5]})
    train(config, [make_volume()], tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(KilledError):
            train(config, [make_volume()], tmp_path / "cut")
    assert len(losses(tmp_path / "cut")) == 4

    train(config, [make_volume()], tmp_path / "cut", resume=True)

    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_resumes_in_the_second_stage_with_adapters(tmp_path, make_config, make_volume, monkeypatch):
    base = train(make_config(stage={"steps": 1}), [make_volume()], tmp_path / "base")
    stages = [
        {"name": "A", "recipe": "lora-encoder", "steps": 2, "window_slices": 2, "crop_voxels": 32},
        {"name": "B", "recipe": "lora-decoder", "steps": 3, "window_slices": 2, "crop_voxels": 32},
    ]
    config = make_config(stages=stages, base=str(base))
    train(config, [make_volume()], tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, 4)
        with pytest.raises(KilledError):
            train(config, [make_volume()], tmp_path / "cut")

    train(config, [make_volume()], tmp_path / "cut", resume=True)

    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_resume_of_a_finished_run_changes_nothing(tmp_path, make_config, make_volume):
    best = train(make_config(), [make_volume()], tmp_path)
    before = best.read_bytes()
    train(make_config(), [make_volume()], tmp_path, resume=True)
    assert best.read_bytes() == before
    assert len(losses(tmp_path)) == 4


def test_refuses_a_used_run_directory(tmp_path, make_config, make_volume):
    train(make_config(stage={"steps": 1}), [make_volume()], tmp_path)
    with pytest.raises(TrainingSetupError, match="resume it"):
        train(make_config(stage={"steps": 1}), [make_volume()], tmp_path)


def test_refuses_to_resume_with_another_config(tmp_path, make_config, make_volume):
    train(make_config(stage={"steps": 1}), [make_volume()], tmp_path)
    with pytest.raises(TrainingSetupError, match="seed"):
        train(make_config(stage={"steps": 1}, seed=5), [make_volume()], tmp_path, resume=True)


def test_refuses_to_resume_nothing(tmp_path, make_config, make_volume):
    with pytest.raises(TrainingSetupError, match="no state"):
        train(make_config(), [make_volume()], tmp_path, resume=True)


def test_nan_loss_stops_names_the_window_and_keeps_the_checkpoint(tmp_path, make_config, make_volume, monkeypatch):
    whole = StageRunner._forward
    monkeypatch.setattr(
        StageRunner,
        "_forward",
        lambda self, batch: whole(self, batch) * (float("nan") if self.progress.step == 3 else 1.0),
    )
    with pytest.raises(TrainingStopped, match=r"step 3.*ball, slice \d+, y \d+, x \d+"):
        train(make_config(), [make_volume()], tmp_path)
    assert torch.load(tmp_path / run_module.STATE_FILE, weights_only=True)["progress"]["step"] == 2


def test_refuses_lora_on_random_weights(tmp_path, make_config, make_volume):
    config = make_config(stage={"recipe": "lora-encoder"})
    with pytest.raises(TrainingSetupError, match="random"):
        train(config, [make_volume()], tmp_path)


def test_refuses_a_device_that_is_not_here(tmp_path, make_config, make_volume):
    with pytest.raises(CoreConfigError, match="cuda:99"):
        train(make_config(device="cuda:99"), [make_volume()], tmp_path)


def test_refuses_a_base_of_another_size(tmp_path, make_config, make_volume):
    base = train(make_config(stage={"steps": 1}), [make_volume()], tmp_path / "base")
    model = {**make_config().model, "memory_slots": 3}
    config = make_config(stage={"recipe": "full"}, base=str(base), model=model)
    with pytest.raises(TrainingSetupError, match="memory_slots 2 instead of 3"):
        train(config, [make_volume()], tmp_path / "next")
