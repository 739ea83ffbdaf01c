import numpy as np
import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.errors import DeviceMemoryError
from sam4em_core.model import build_model
from sam4em_core.training.data import to_working_lattice
from sam4em_core.training.loop import CLOCKS, Progress, StageRunner, draw_batch
from sam4em_core.training.sampler import WindowSampler


@pytest.fixture
def sampler(make_volume, make_config):
    return WindowSampler([to_working_lattice(make_volume(), (8.0, 8.0, 8.0))], make_config().sampling)


@pytest.fixture
def make_runner(make_config, sampler):
    def make(stage=None, **changes):
        config = make_config(stage=stage, **changes)
        torch.manual_seed(0)
        network = build_model(ModelConfig.of(config.model))
        return StageRunner(config, network, sampler, Progress(), device=torch.device("cpu"))

    return make


def test_a_batch_depends_on_seed_and_step_alone(make_config, sampler):
    config = make_config(stage={"batch_windows": 2})
    first, again, next_one = (draw_batch(sampler, config, config.stages[0], step) for step in (3, 3, 4))
    assert torch.equal(first.image_BTHW, again.image_BTHW)
    assert torch.equal(first.labels_BTCHW, again.labels_BTCHW)
    assert not torch.equal(first.image_BTHW, next_one.image_BTHW)
    assert first.image_BTHW.shape == (2, 3, 32, 32)
    assert first.labels_BTCHW.shape == (2, 3, 1, 32, 32)
    assert len(first.origins) == 2


def test_a_few_steps_lower_the_loss(make_runner):
    runner = make_runner(stage={"steps": 30, "learning_rate": 3e-3, "final_rate_fraction": 1.0})
    losses = [float(str(runner.step()["loss"])) for _ in range(30)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_a_row_of_the_log(make_runner):
    row = make_runner(stage={"warmup_steps": 4, "learning_rate": 1e-2}).step()
    assert row["step"] == 0
    assert row["stage"] == "only"
    assert float(str(row["learning_rate"])) == pytest.approx(0.0025)
    assert 0 <= float(str(row["data_fraction"])) <= 1


def test_the_averaged_network_is_a_copy(make_runner):
    runner = make_runner()
    runner.step()
    network = runner.averaged_network()
    name = "decoder.head.full.0.weight"
    mean = network.state_dict()[name]
    assert torch.equal(mean, runner.average.mean[name])
    assert mean.data_ptr() != runner.network.state_dict()[name].data_ptr()


def test_a_stage_ends_with_its_steps_or_its_minutes(make_runner):
    runner = make_runner(stage={"steps": 2, "limit_minutes": 0.5})
    assert not runner.is_over
    runner.progress.stage_seconds = 31.0
    assert runner.is_over
    runner.progress.stage_seconds, runner.progress.stage_step = 0.0, 2
    assert runner.is_over


def test_frozen_weights_stay_bit_equal(make_runner):
    runner = make_runner(stage={"encoder_rate_fraction": 0.0})
    name = "encoder.image_encoder.trunk.blocks.0.attn.qkv.weight"
    before = runner.network.state_dict()[name].clone()
    runner.step()
    assert torch.equal(runner.network.state_dict()[name], before)


def test_bfloat16_keeps_its_weights_in_float32(make_runner):
    runner = make_runner(dtype="bfloat16")
    runner.step()
    assert {value.dtype for value in runner.network.parameters()} == {torch.float32}


def test_a_full_device_says_what_to_lower(make_runner, monkeypatch):
    runner = make_runner()

    def fail(*_args, **_kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner.network, "forward_window", fail)
    with pytest.raises(DeviceMemoryError, match=r"stage only, step 0.*batch_windows.*gradient_checkpointing"):
        runner.step()


def test_checkpointed_encoder_trains_to_the_same_losses(make_runner):
    plain, again = make_runner(), make_runner(gradient_checkpointing=True)
    assert [plain.step()["loss"] for _ in range(2)] == [again.step()["loss"] for _ in range(2)]


def test_processor_time_leaves_out_what_the_process_waits(make_runner, monkeypatch):
    monkeypatch.setitem(CLOCKS, "cpu", iter([10.0, 11.0, 17.0]).__next__)
    runner = make_runner(stage={"limit_minutes": 0.1}, clock="cpu")
    row = runner.step()
    assert row["elapsed_s"] == "7.0"
    assert row["data_fraction"] == "0.143"
    assert runner.is_over
