import json

import pytest
import safetensors.torch
import torch

from sam4em_core.checkpoint import load_checkpoint, read_checkpoint_header
from sam4em_core.errors import ArchitectureMismatch, CoreConfigError
from sam4em_core.model import build_model
from sam4em_core.training import run as run_module
from sam4em_core.training import shipping, train
from sam4em_core.training.errors import TrainingDiskError, TrainingSetupError, TrainingStopped
from sam4em_core.training.loop import StageRunner
from sam4em_core.training.scores import ClassScore
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


@pytest.mark.parametrize("killed_at", [2, 3, 4])
def test_resumes_in_the_second_stage_with_adapters(tmp_path, make_config, make_volume, monkeypatch, killed_at):
    """Killed before the stage was saved, new adapters must begin as they did; afterwards they are in the state."""
    base = train(make_config(stage={"steps": 1}), [make_volume()], tmp_path / "base")
    stages = [
        {"name": "A", "recipe": "lora-encoder", "steps": 2, "window_slices": 2, "crop_voxels": 32},
        {"name": "B", "recipe": "lora-decoder", "steps": 3, "window_slices": 2, "crop_voxels": 32},
    ]
    config = make_config(stages=stages, base=str(base))
    train(config, [make_volume()], tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, killed_at)
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


def test_the_run_directory_says_what_the_run_was_made_of(tmp_path, make_config, make_volume):
    train(make_config(seed=3), [make_volume()], tmp_path)
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["seed"] == 3
    assert len(document["code_sha256"]) == len(document["data_sha256"]["ball"]) == 64
    assert document["base_sha256"] == ""
    assert document["config"]["stages"][0]["clip_norm"] == 1.0
    for name in ("best.safetensors", "last.safetensors", "best.md", "scores.json", "state.pt"):
        assert (tmp_path / name).is_file(), name
    assert {path.name for path in (tmp_path / "pictures" / "best").iterdir()} == {"worst.png", "best.png"}
    slices = json.loads((tmp_path / "scores.json").read_text())[-1]["slices"]
    assert slices["worst"]["iou"] <= slices["best"]["iou"]


def test_best_is_kept_while_last_goes_on(tmp_path, make_config, make_volume, monkeypatch):
    scores = iter([0.9, 0.1])
    monkeypatch.setattr(
        shipping,
        "score_regions",
        lambda *_: {"mitochondrion": ClassScore(0.5, next(scores), 0.5, has_truth=True)},
    )
    config = make_config(validation={"every_steps": 2, "thresholds": [0.5]})
    best = train(config, [make_volume()], tmp_path)
    assert load_checkpoint(best).header.card["iou mitochondrion"] == "0.9000"
    assert load_checkpoint(tmp_path / "last.safetensors").header.card["iou mitochondrion"] == "0.1000"


def test_refuses_to_resume_with_other_data(tmp_path, make_config, make_volume):
    train(make_config(stage={"steps": 1}), [make_volume()], tmp_path)
    with pytest.raises(TrainingSetupError, match="splits of ball are others"):
        train(make_config(stage={"steps": 1}), [make_volume(train=(0, 12))], tmp_path, resume=True)


def test_refuses_to_resume_on_another_base(tmp_path, make_config, make_volume):
    base = train(make_config(stage={"steps": 1}), [make_volume()], tmp_path / "base")
    config = make_config(stage={"steps": 1, "recipe": "full"}, base=str(base))
    train(config, [make_volume()], tmp_path / "next")
    base.write_bytes((tmp_path / "next" / "best.safetensors").read_bytes())
    with pytest.raises(TrainingSetupError, match="another file than when the run began"):
        train(config, [make_volume()], tmp_path / "next", resume=True)


def test_refuses_choose_slices_without_foreground(tmp_path, make_config, make_volume):
    labels = make_volume().labels_czyx
    labels[0, 14:] = 0
    with pytest.raises(TrainingSetupError, match="no class has a voxel in the choose ranges"):
        train(make_config(), [make_volume(labels_czyx=labels)], tmp_path)


def test_lora_may_follow_pre_training_and_polish_both(tmp_path, make_config, make_volume):
    recipes = ("pretrain", "lora-encoder", "lora-decoder", "polish")
    common = {"steps": 1, "window_slices": 2, "crop_voxels": 32, "batch_windows": 1}
    config = make_config(stages=[{"name": recipe, "recipe": recipe, **common} for recipe in recipes])
    train(config, [make_volume()], tmp_path)
    assert [row["stage"] for row in read_log(tmp_path / "log.csv")] == list(recipes)


def test_refuses_to_polish_random_weights(tmp_path, make_config, make_volume):
    with pytest.raises(TrainingSetupError, match="nothing to polish"):
        train(make_config(stage={"recipe": "polish"}), [make_volume()], tmp_path)


def test_a_full_disk_at_a_checkpoint_leaves_the_previous_ones_whole(tmp_path, make_config, make_volume, monkeypatch):
    config = make_config(stage={"steps": 5}, validation={"every_steps": 2, "thresholds": [0.5]})
    written = []

    def save_or_fail(tensors, path, metadata):
        written.append(path)
        if len(written) > 2:
            path.write_bytes(b"half a checkp")
            raise OSError(28, "No space left on device")
        return save_file(tensors, path, metadata=metadata)

    save_file = safetensors.torch.save_file
    monkeypatch.setattr(safetensors.torch, "save_file", save_or_fail)
    with pytest.raises(TrainingDiskError, match="No space left"):
        train(config, [make_volume()], tmp_path)
    monkeypatch.undo()
    for name in ("best.safetensors", "last.safetensors"):
        load_checkpoint(tmp_path / name)
    assert not list(tmp_path.glob("*.part"))
    train(config, [make_volume()], tmp_path, resume=True)
    assert len(losses(tmp_path)) == 5


def test_refuses_official_weights_for_the_small_backbone(tmp_path, make_config, make_volume):
    torch.save({"model": {}}, tmp_path / "official.pt")
    config = make_config(base=str(tmp_path / "official.pt"))
    with pytest.raises(TrainingSetupError, match=r"backbone.*sam2\.1_hiera_t"):
        train(config, [make_volume()], tmp_path / "run")


def test_an_official_base_is_trained_in_stages_and_saved_small(
    tmp_path, make_config, make_volume, official_file, monkeypatch
):
    base = official_file("sam2.1_hiera_t", tmp_path / "sam2.1_hiera_tiny.pt")
    common = {"steps": 1, "window_slices": 2, "crop_voxels": 32, "batch_windows": 1, "warmup_steps": 0}
    stages = [
        {"name": "A", "recipe": "lora-encoder", **common},
        {"name": "B", "recipe": "lora-decoder", **common},
    ]
    model_settings = {"backbone": "sam2.1_hiera_t", "memory_slots": 2}
    config = make_config(stages=stages, base=str(base), model=model_settings)
    best = train(config, [make_volume(choose=None)], tmp_path / "run")

    assert best.stat().st_size < 32e6
    header = read_checkpoint_header(best)
    assert (header.stored, header.encoder_origin, header.base_name) == ("delta", "official", base.name)
    assert header.base_sha256 == json.loads((tmp_path / "run" / "config.json").read_text())["base_sha256"]
    monkeypatch.setenv("SAM4EM_BASE", str(tmp_path))
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        from_delta = load_checkpoint(best).network.forward_window(image).refined_BTKHW
        state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["plain"]
        network = build_model(header.model).eval()
        network.load_state_dict(state)
        torch.testing.assert_close(from_delta, network.forward_window(image).refined_BTKHW, rtol=1e-2, atol=1e-2)
    other = make_config(stages=stages, base=str(base), model={"backbone": "sam2.1_hiera_s", "memory_slots": 2})
    with pytest.raises(ArchitectureMismatch, match="looks like a hiera_t"):
        train(other, [make_volume(choose=None)], tmp_path / "other")
