"""Whole runs of the real stages on tiny volumes: equal results, whatever happens on the way."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.config import RunConfig
from pipeline.errors import CorruptData, ManifestMismatch, RunLocked
from pipeline.ledger import Lease, read_state
from pipeline.run.launch import open_run, run_config
from pipeline.run.prepare import prepare_run
from pipeline.run.serial import SerialExecutor
from pipeline.run.status import read_status
from pipeline.run.verify import verify_run
from pipeline.storage import ObjectStore
from pipeline.telemetry import SilentReporter

SHAPE = (23, 61, 67)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Write a volume of random blobs, so that objects cross every face."""
    from scipy import ndimage

    noise = np.random.default_rng(7).normal(size=SHAPE)
    smooth = ndimage.gaussian_filter(noise, (1.5, 3, 3))
    grey = np.uint8(np.clip(90 + 45 * smooth / smooth.std(), 0, 255))
    path = tmp_path_factory.mktemp("image") / "em.zarr"
    array = zarr.create_array(str(path), shape=SHAPE, chunks=(16, 32, 32), dtype="uint8", zarr_format=3)
    array[:] = grey
    return str(path)


def config_of(image, output, workers=2, **changes):
    document = {
        "image": {"url": image, "voxel_size_zyx_nm": [30, 8, 8]},
        "outputs": [
            {"url": f"{output}.zarr", "chunk_zyx": [8, 16, 16], "num_mips": 3},
            {"url": str(output), "chunk_zyx": [8, 16, 16], "num_mips": 3},
        ],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [8, 32, 32]},
        "cluster": {"workers": workers, "threads_per_worker": 2},
    }
    for name, value in changes.items():
        document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(document)


def serial(prepared, stages):
    return SerialExecutor(stages)


def segment(config, **options):
    return run_config(config, reporter=SilentReporter(), **{"open_executor": serial, **options})


def digest(config):
    """Digest the voxels of every level of the OME-Zarr output."""
    root = config.outputs[0].url
    found = hashlib.sha256()
    for mip in range(3):
        found.update(zarr.open_array(f"{root}/{mip}", mode="r")[:].tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def truth(image, tmp_path_factory):
    """One undisturbed run in this process."""
    config = config_of(image, tmp_path_factory.mktemp("truth") / "out")
    summary = segment(config)
    return config, summary, digest(config)


def test_a_run_in_this_process(truth):
    config, summary, _ = truth
    assert summary.status == "complete"
    labels = zarr.open_array(f"{config.outputs[0].url}/0", mode="r")[:]
    assert labels.shape == SHAPE
    assert labels.max() > 10
    assert summary.core_voxels == np.prod(SHAPE)
    assert summary.model_voxels >= summary.core_voxels
    assert segment(config).status == "already complete"


def test_verify_passes_and_finds_a_lost_and_a_damaged_chunk(image, tmp_path):
    config = config_of(image, tmp_path / "out")
    segment(config)
    run = open_run(prepare_run(config))

    def verify():
        return verify_run(run.store, run.stages.specs(), run.places, SilentReporter())

    report = verify()
    assert report.num_units == dict(run.places.num_units())
    assert read_state(run.store).verified
    before = digest(config)
    chunks = sorted(path for path in Path(config.outputs[0].url, "0", "c").rglob("*") if path.is_file())
    chunks[0].unlink()
    chunks[-1].write_bytes(chunks[-1].read_bytes()[:-7])
    with pytest.raises(CorruptData, match=r"2 write units are not what the journal says"):
        verify()
    assert not read_state(run.store).complete
    summary = segment(config)
    assert 2 <= summary.num_tasks < 20
    verify()
    assert digest(config) == before


def test_a_changed_config_is_refused(truth):
    config, _, _ = truth
    changed = config.model_copy(update={"segmenter": config.segmenter.model_copy(update={"smoothing_nm": 9.0})})
    with pytest.raises(ManifestMismatch, match=r"config\.segmenter\.smoothing_nm was 0\.0 when it began and is 9\.0"):
        segment(changed)
    more_workers = config.model_copy(update={"cluster": config.cluster.model_copy(update={"workers": 7})})
    assert segment(more_workers).status == "already complete"


def test_a_second_driver_is_refused(truth):
    config, _, _ = truth
    store = ObjectStore(f"{config.outputs[0].url}.run")
    with Lease(store), pytest.raises(RunLocked, match=f"process {os.getpid()} "):
        segment(config)
    assert RunLocked.exit_code == 2


def test_restart_leaves_nothing_of_the_old_run(image, tmp_path):
    segment(config_of(image, tmp_path / "out", outputs=[{"url": f"{tmp_path}/out.zarr", "chunk_zyx": [8, 16, 16]}]))
    (tmp_path / "out.zarr.run" / "notes.txt").write_text("mine")
    config = config_of(image, tmp_path / "out", segmenter={"smoothing_nm": 9.0})
    with pytest.raises(ManifestMismatch):
        segment(config)
    assert segment(config, restart=True).status == "complete"
    assert (tmp_path / "out.zarr.run" / "notes.txt").read_text() == "mine"
    assert segment(config).status == "already complete"


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_workers_do_not_change_a_voxel(image, tmp_path, truth, workers):
    config = config_of(image, tmp_path / "out", workers)
    summary = segment(config, open_executor=None)
    assert summary.status == "complete"
    assert digest(config) == truth[2]
    assert 1 <= summary.num_workers <= workers


DRIVER = """
import sys
from pathlib import Path
from pipeline.config import RunConfig
from pipeline.run.driver import EXIT_INTERRUPTED
from pipeline.run.launch import run_config
from pipeline.run.signals import stop_on_signals
from pipeline.telemetry import SilentReporter

if __name__ == "__main__":
    config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
    with stop_on_signals() as should_stop:
        summary = run_config(config, reporter=SilentReporter(), should_stop=should_stop)
    print(summary.status, summary.num_tasks, summary.num_retried)
    sys.exit(EXIT_INTERRUPTED if summary.status == "interrupted" else 0)
"""


def start_driver(tmp_path, config):
    script, document = tmp_path / "drive.py", tmp_path / "config.json"
    script.write_text(DRIVER)
    document.write_text(config.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, str(script), str(document)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def wait_until(condition, limit_s=60.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def num_faces(tmp_path):
    return sum(1 for path in (tmp_path / "out.zarr.run" / "faces").rglob("*") if path.is_file())


def workers_of(driver):
    """Find the worker processes below a driver: those that a nanny has spawned."""
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
    threads = Path(f"/proc/{driver.pid}/task").iterdir()
    for thread in threads:
        children += (thread / "children").read_text().split()
    found = []
    for child in dict.fromkeys(children):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        if b"spawn_main" in command:
            found.append(int(child))
    return found


def small_blocks(image, tmp_path):
    """Many tasks, so that a kill comes in the middle."""
    output = [{"url": f"{tmp_path}/out.zarr", "chunk_zyx": [8, 16, 16], "num_mips": 3}]
    return config_of(image, tmp_path / "out", plan={"block_zyx": [8, 16, 16]}, outputs=output)


def test_a_killed_driver_costs_only_what_was_in_flight(image, tmp_path):
    config = small_blocks(image, tmp_path)
    driver = start_driver(tmp_path, config)
    store = ObjectStore(f"{config.outputs[0].url}.run")
    wait_until(lambda: list((tmp_path / "out.zarr.run" / "journal").rglob("*.jsonl")))
    driver.kill()
    driver.wait()
    driver.stdout.close()
    status = read_status(store)
    assert status.holder is None
    assert f"process {driver.pid} " in status.dead_holder
    done = sum(stage.done for stage in status.stages)
    total = sum(stage.total for stage in status.stages)
    assert 0 < done < total
    second = start_driver(tmp_path, config)
    output, _ = second.communicate(timeout=120)
    assert output.split()[:2] == ["complete", str(total - done)]
    undisturbed = small_blocks(image, tmp_path / "undisturbed")
    segment(undisturbed)
    assert digest(config) == digest(undisturbed)


def test_a_killed_worker_costs_nothing(image, tmp_path):
    config = small_blocks(image, tmp_path)
    driver = start_driver(tmp_path, config)
    wait_until(lambda: num_faces(tmp_path) > 10)
    os.kill(workers_of(driver)[0], signal.SIGKILL)
    output, _ = driver.communicate(timeout=120)
    status, num_tasks, num_retried = output.split()
    assert status == "complete"
    assert int(num_retried) >= 1
    undisturbed = small_blocks(image, tmp_path / "undisturbed")
    summary = segment(undisturbed)
    assert int(num_tasks) == summary.num_tasks
    assert digest(config) == digest(undisturbed)


def test_a_stopped_driver_flushes_and_the_next_goes_on(image, tmp_path):
    config = small_blocks(image, tmp_path)
    driver = start_driver(tmp_path, config)
    wait_until(lambda: num_faces(tmp_path) > 10)
    # As a terminal does it: to every process of the group.
    os.killpg(driver.pid, signal.SIGINT)
    output, _ = driver.communicate(timeout=60)
    status, num_tasks, _ = output.split()
    assert (status, driver.returncode) == ("interrupted", 130)
    stages = read_status(ObjectStore(f"{config.outputs[0].url}.run")).stages
    assert sum(stage.done for stage in stages) == int(num_tasks)
    summary = segment(config)
    assert summary.status == "complete"
    assert summary.num_tasks == sum(stage.total for stage in stages) - int(num_tasks)


def test_the_summary_is_on_disk(truth):
    config, summary, _ = truth
    document = json.loads(Path(f"{config.outputs[0].url}.run", "summary.json").read_text())
    assert document["model_voxels"] == summary.model_voxels
    assert document["peak_bytes_driver"] > 0
