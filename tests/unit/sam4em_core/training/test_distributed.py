import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from sam4em_core.errors import CoreConfigError
from sam4em_core.training import distributed, train
from sam4em_core.training.data import to_working_lattice
from sam4em_core.training.distributed import ALONE, Ranks, process_group
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.loop import Progress, StageRunner, draw_batch
from sam4em_core.training.sampler import WindowSampler
from sam4em_core.training.state import read_log

# Each process is told a run directory of its own: only the first may use it.
WORKER = """
import os, sys
from pathlib import Path
import numpy as np
from sam4em_core.training import TrainingConfig, TrainingVolume, train

folder = Path(sys.argv[1])
config = TrainingConfig.model_validate_json((folder / "config.json").read_text())
arrays = np.load(folder / "volume.npz")
volume = TrainingVolume("ball", arrays["image"], arrays["labels"], (8.0, 8.0, 8.0), train=(0, 13), choose=(14, 19))
train(config, [volume], folder / ("rank" + os.environ["RANK"]))
(folder / ("threads" + os.environ["RANK"])).write_text("\\n".join(
    name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")
))
"""


def columns(run_dir, *names):
    return np.array([[float(row[name]) for name in names] for row in read_log(run_dir / "log.csv")])


def test_two_processes_have_the_loss_and_gradient_of_one(tmp_path, make_config, make_volume):
    volume = make_volume()
    stage = {"batch_windows": 2, "steps": 3, "prompt_dropout": 0.0, "memory_dropout": 0.0, "limit_minutes": 60.0}
    config = make_config(stage=stage)
    train(config, [volume], tmp_path / "one")
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "worker.py").write_text(WORKER)
    np.savez(tmp_path / "volume.npz", image=volume.image_zyx, labels=volume.labels_czyx)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "worker.py"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one = columns(tmp_path / "one", "loss", "grad_norm")
    two = columns(tmp_path / "rank0", "loss", "grad_norm")
    assert len(one) == 3
    np.testing.assert_allclose(two, one, rtol=2e-3)
    assert (tmp_path / "rank0" / "best.safetensors").is_file()
    assert not (tmp_path / "rank1").exists()
    # A gloo thread that outlives the group ends the process with SIGABRT now and then.
    for rank in (0, 1):
        assert "gloo" not in (tmp_path / f"threads{rank}").read_text()


@pytest.fixture
def sampler(make_volume, make_config):
    return WindowSampler([to_working_lattice(make_volume(), (8.0, 8.0, 8.0))], make_config().sampling)


def test_the_windows_of_a_step_are_shared_out(make_config, sampler):
    config = make_config(stage={"batch_windows": 4})
    whole = draw_batch(sampler, config, config.stages[0], 5)
    parts = [draw_batch(sampler, config, config.stages[0], 5, Ranks(rank, 2)) for rank in (0, 1)]
    assert (*parts[0].origins, *parts[1].origins) == tuple(whole.origins[i] for i in (0, 2, 1, 3))
    assert torch.equal(parts[1].image_BTHW, whole.image_BTHW[1::2])


def test_refuses_windows_that_cannot_be_shared(make_config, sampler):
    config = make_config(stage={"batch_windows": 3})
    with pytest.raises(TrainingSetupError, match="multiple of 2"):
        StageRunner(config, torch.nn.Identity(), sampler, Progress(), device=torch.device("cpu"), ranks=Ranks(0, 2))


def test_alone_nothing_changes():
    layer = torch.nn.Linear(2, 3)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad.clone()
    ALONE.add_gradients(layer.parameters())
    assert torch.equal(layer.weight.grad, before)
    assert ALONE.first_says(3.0) == 3.0
    assert ALONE.is_first


def test_refuses_more_processes_than_gpus(monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.torch.cuda, "device_count", lambda: 2)
    with pytest.raises(CoreConfigError, match="there are 2"), process_group("cuda"):
        pass
