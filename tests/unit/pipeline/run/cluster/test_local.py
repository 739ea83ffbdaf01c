import pytest

from pipeline.config.clusters import GpusCluster
from pipeline.errors import ConfigError
from pipeline.run.cluster.local import choose_devices, device_address, gpu_cluster, worker_specs
from pipeline.run.cluster.settings import WorkerNeeds


def test_no_gpu_is_an_error_and_no_slow_run(monkeypatch):
    monkeypatch.setattr("pipeline.run.cluster.local.count_gpus", lambda: 0)
    with (
        pytest.raises(ConfigError, match=r"torch sees none.*nvidia-smi"),
        gpu_cluster(GpusCluster(kind="gpus"), WorkerNeeds(2**30)),
    ):
        pass


def test_a_gpu_that_is_not_there():
    with pytest.raises(ConfigError, match=r"cluster\.devices names \[4\], torch sees 4: 0 to 3"):
        choose_devices((1, 4), 4)
    assert choose_devices((3, 1), 4) == [3, 1]
    assert choose_devices(None, 3) == [0, 1, 2]


def test_every_worker_sees_its_own_gpu_and_cpu_workers_see_none(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    section = GpusCluster(kind="gpus", cpu_workers=2, threads_per_worker=3)
    specs = {name: spec["options"] for name, spec in worker_specs(section, WorkerNeeds(2**30), [0, 2]).items()}
    assert {name: options["env"]["CUDA_VISIBLE_DEVICES"] for name, options in specs.items()} == {
        "gpu-0": "0",
        "gpu-2": "2",
        "cpu-0": "",
        "cpu-1": "",
    }
    assert specs["gpu-2"]["resources"] == {"device": 2}
    assert specs["cpu-1"]["resources"] == {"cpu": 3}
    assert {options["memory_limit"] for options in specs.values()} == {2**31}


def test_gpus_are_counted_among_those_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8a")
    assert [device_address(number) for number in (0, 1)] == ["5", "GPU-8a"]
