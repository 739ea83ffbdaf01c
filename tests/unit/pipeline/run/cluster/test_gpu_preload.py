from types import SimpleNamespace

import pytest

from pipeline.errors import DeviceLost, OurError
from pipeline.run.cluster import gpu_preload
from pipeline.run.cluster.gpu_preload import REQUIRE_GPU, WORKERS_PER_JOB, choose_device, dask_setup


@pytest.mark.parametrize(
    ("visible", "name", "device"),
    [("0,1,2,3", "gpu-7-2", "2"), ("4, GPU-9f", "gpu-0-1", "GPU-9f"), (None, "gpu-0-3", "3")],
)
def test_every_worker_of_a_job_keeps_one_gpu(visible, name, device):
    assert choose_device(visible, name, 4) == device


def test_a_job_with_fewer_gpus_than_workers():
    with pytest.raises(DeviceLost, match=r"the job has 2 \(0,1\) for 4 workers; workers_per_job must be"):
        choose_device("0,1", "gpu-0-2", 4)


def test_a_worker_without_a_number():
    with pytest.raises(OurError, match="no number at the end of its name"):
        choose_device("0,1", "worker", 2)


def test_a_broken_node_takes_no_block(monkeypatch):
    monkeypatch.setenv(REQUIRE_GPU, "1")
    monkeypatch.setattr(gpu_preload, "count_gpus", lambda: 0)
    with pytest.raises(DeviceLost, match="torch sees no GPU"):
        dask_setup(SimpleNamespace(name="gpu-0"))
    monkeypatch.setenv(REQUIRE_GPU, "0")
    dask_setup(SimpleNamespace(name="gpu-0"))


def test_the_choice_is_made_before_torch_looks(monkeypatch):
    monkeypatch.setenv(WORKERS_PER_JOB, "2")
    monkeypatch.setenv(REQUIRE_GPU, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    seen = []

    def count():
        import os

        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
        return 1

    monkeypatch.setattr(gpu_preload, "count_gpus", count)
    dask_setup(SimpleNamespace(name="gpu-0-1"))
    assert seen == ["7"]
