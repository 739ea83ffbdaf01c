import numpy as np
import pytest
import zarr

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.errors import ConfigError
from pipeline.run import api
from pipeline.run.probe import Figure, mean_of, spread_blocks

SHAPE = (32, 70, 90)


@pytest.fixture
def config(tmp_path):
    """Twelve blocks of ever more objects."""
    rng = np.random.default_rng(3)
    image = (rng.random(SHAPE) < np.linspace(0, 0.4, SHAPE[2])).astype(np.uint8) * 200
    zarr.create_array(str(tmp_path / "em.zarr"), shape=SHAPE, chunks=(16, 32, 32), dtype="uint8")[:] = image
    values = {
        "image": {"url": str(tmp_path / "em.zarr"), "voxel_size_zyx_nm": [8, 8, 8]},
        "outputs": [
            {"url": str(tmp_path / name), "chunk_zyx": [16, 32, 32], "num_mips": 2} for name in ("out.zarr", "out")
        ],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [16, 32, 32]},
        "prices": {"cpu_hour": 3600.0},
    }
    return parse_config(values, RunConfig, "test")


@pytest.mark.parametrize(
    ("num_blocks", "num_probes", "expected"),
    [(12, 1, [6]), (12, 3, [2, 6, 10]), (3, 9, [0, 1, 2]), (2 * 10**7, 2, [5_000_000, 15_000_000])],
)
def test_probes_are_spread_evenly(num_blocks, num_probes, expected):
    assert spread_blocks(num_blocks, num_probes) == expected


def test_the_range_comes_from_the_spread():
    figure = mean_of([1.0, 2.0, 3.0])
    assert (figure.low, figure.mean) == (0.0, 2.0)
    assert figure.high == pytest.approx(2.0 + 4.303 / 3**0.5, abs=1e-3)
    assert mean_of([2.0, 2.0]) == Figure(2.0, 2.0, 2.0)
    assert mean_of([2.0]) == Figure(2.0, None, None)


def test_blocks_are_carried_out_and_nothing_is_left_behind(config, tmp_path):
    before = sorted(tmp_path.iterdir())
    report = api.plan_report(config, num_probes=4)
    assert sorted(tmp_path.iterdir()) == before
    assert report["probes"] == 4
    assert report["gpu_hours"] is None
    assert set(report["seconds_per_task"]) == {"label", "relabel", "pyramid"}
    for figure in (*report["seconds_per_task"].values(), report["hours_on_these_workers"], *report["cost"].values()):
        assert figure["mean"] > 0
        assert figure["low"] <= figure["mean"] <= figure["high"]
    # A CPU hour at 3600 costs one per second; every stage runs on CPUs here.
    tasks, seconds = report["tasks"], report["seconds_per_task"]
    expected = sum(tasks[stage] * seconds[stage]["mean"] for stage in seconds)
    assert report["cost"]["cpu_hour"]["mean"] == pytest.approx(expected, rel=0.02)
    assert report["files_written"] == 2 * (2 * 3 * 3 + 2 * 2 * 1)
    assert 0 < report["stored_bytes"]["outputs"]["mean"] < report["bytes_written"]


def test_one_probe_has_no_range_and_none_measures_nothing(config):
    assert api.plan_report(config)["cpu_worker_hours"]["low"] is None
    assert "probes" not in api.plan_report(config, num_probes=0)


def test_prices_can_be_given_over_those_of_the_config(config):
    cost = api.plan_report(config, prices=["cpu_hour=0", "million_writes=5"])["cost"]
    assert cost["cpu_hour"]["mean"] == 0
    assert cost["total"]["mean"] == cost["million_writes"]["mean"] > 0
    with pytest.raises(ConfigError, match="price"):
        api.plan_report(config, prices=["gpu_our=3"])
    with pytest.raises(ConfigError, match="price"):
        api.plan_report(config, prices=["cpu_hour=much"])
