"""Whole runs on a real Slurm: GPU and CPU jobs, cancelled jobs, walltimes that end, a driver that is killed."""

import hashlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import private_slurm
import pytest
import yaml
import zarr

from pipeline.config import RunConfig
from pipeline.errors import WorkersUnavailable
from pipeline.run.launch import run_config
from pipeline.run.loop import TaskLoop
from pipeline.run.serial import SerialExecutor
from pipeline.stages import label
from pipeline.telemetry import SilentReporter

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).parents[3]
SHAPE = (23, 61, 67)
NUM_TASKS = 303
GROUP = {"jobs": 1, "cpus_per_worker": 1, "memory_gib_per_worker": 1.0, "walltime": "00:10:00"}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """Write a volume of random blobs, so that objects cross every face."""
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(np.random.default_rng(7).normal(size=SHAPE), (1.5, 3, 3))
    path = tmp_path_factory.mktemp("image") / "em.zarr"
    array = zarr.create_array(str(path), shape=SHAPE, chunks=(16, 32, 32), dtype="uint8")
    array[:] = np.uint8(np.clip(90 + 45 * smooth / smooth.std(), 0, 255))
    return str(path)


def values_of(image, folder, **cluster):
    return {
        "image": {"url": image, "voxel_size_zyx_nm": [30, 8, 8]},
        "outputs": [{"url": f"{folder}/out.zarr", "chunk_zyx": [8, 16, 16], "num_mips": 2}],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [8, 16, 16]},
        "cluster": {
            "kind": "slurm",
            "cpu_workers": {**GROUP, "jobs": 2, "queue": "cpu"},
            "interface": "lo",
            "log_directory": str(folder / "logs"),
            "block_minutes": 0.1,
            "poll_seconds": 1,
            "worker_timeout_minutes": 2,
            **cluster,
        },
    }


def segment(values, **options):
    return run_config(RunConfig.model_validate(values), reporter=SilentReporter(), **options)


def digest(folder):
    found = hashlib.sha256()
    for mip in range(2):
        found.update(zarr.open_array(f"{folder}/out.zarr/{mip}", mode="r")[:].tobytes())
    return found.hexdigest()


@pytest.fixture(scope="module")
def truth(image, tmp_path_factory):
    """Digest of a run in this process, without Slurm."""
    folder = tmp_path_factory.mktemp("truth")
    values = {**values_of(image, folder), "cluster": {"kind": "local"}}
    summary = segment(values, open_executor=lambda _, stages: SerialExecutor(stages))
    assert (summary.status, summary.num_tasks) == ("complete", NUM_TASKS)
    return digest(folder)


@pytest.fixture
def watch(monkeypatch):
    """Call a function after every task that a run has recorded; gives the completions seen so far."""
    completions, finish = [], TaskLoop._finish
    hooks = []

    def watched(loop, completion, result):
        finish(loop, completion, result)
        completions.append(completion)
        for hook in hooks:
            hook(completions)

    monkeypatch.setattr(TaskLoop, "_finish", watched)
    return completions, hooks.append


def jobs():
    return private_slurm.queue()


def addresses_of(folder, group):
    """Read from the jobs' own output where the workers of a group listened."""
    text = "".join(path.read_text() for path in (folder / "logs").glob(f"sam4em-{group}-*.err"))
    return {line.split()[-1] for line in text.splitlines() if "Start worker at" in line}


def test_gpu_jobs_run_the_model_and_cpu_jobs_all_else(slurm, image, truth, tmp_path, watch):
    """Also encrypted: the certificates reach the jobs."""
    completions, _ = watch
    groups = {name: {**GROUP, "queue": name.partition("_")[0]} for name in ("gpu_workers", "cpu_workers")}
    summary = segment(values_of(image, tmp_path, **groups, tls=make_certificates(tmp_path)))
    assert (summary.status, summary.num_workers) == ("complete", 2)
    assert digest(tmp_path) == truth
    assert {done.worker for done in completions if done.task.stage == label.NAME} == addresses_of(tmp_path, "gpu")
    assert {done.worker for done in completions if done.task.stage != label.NAME} == addresses_of(tmp_path, "cpu")
    assert all(address.startswith("tls://") for address in addresses_of(tmp_path, "gpu"))
    wait_for_an_empty_queue(10)


def test_a_job_that_is_cancelled_is_replaced_and_changes_nothing(slurm, image, truth, tmp_path, watch):
    _, add_hook = watch
    cancelled = []

    def cancel_one(done):
        if len(done) == 40:
            cancelled.extend(jobs())
            subprocess.run(["scancel", cancelled[0]], check=True)

    def wait_for_the_next(done):
        # What is left of a run this small would be done before the new job has started.
        if len(done) == 60:
            wait_until(lambda: set(jobs()) - set(cancelled), 30)

    add_hook(cancel_one)
    add_hook(wait_for_the_next)
    summary = segment(values_of(image, tmp_path))
    assert summary.status == "complete"
    assert digest(tmp_path) == truth
    assert len(cancelled) == 2
    assert len(list((tmp_path / "logs").glob("sam4em-cpu-*.err"))) == 3


def test_a_walltime_that_ends_costs_nothing(slurm, image, truth, tmp_path, watch, caplog):
    """A minute of walltime, 15 s of life: workers leave by themselves, their jobs are followed by others."""
    _, add_hook = watch
    started = time.monotonic()

    def take_time(done):
        # 300 tasks of 0.15 s are 45 s: three lives.
        time.sleep(max(0.0, started + 0.15 * len(done) - time.monotonic()))

    add_hook(take_time)
    group = {**GROUP, "jobs": 2, "queue": "cpu", "walltime": "00:01:00"}
    with caplog.at_level(logging.WARNING):
        summary = segment(values_of(image, tmp_path, cpu_workers=group, spare_minutes=0.72))
    assert summary.status == "complete"
    assert digest(tmp_path) == truth
    texts = [path.read_text() for path in (tmp_path / "logs").glob("sam4em-cpu-*.err")]
    assert len(texts) >= 4
    assert sum("worker-lifetime-reached" in text for text in texts) >= 2
    assert not any("DUE TO TIME LIMIT" in text for text in texts)
    assert "jobs that ended are submitted again" in caplog.text


def test_a_driver_that_is_killed_leaves_no_job_behind(slurm, image, truth, tmp_path):
    """And the run goes on with workers of another kind: the cluster is no part of what is compared."""
    values = values_of(image, tmp_path)
    driver = start_driver(tmp_path, values)
    wait_until(lambda: list(tmp_path.glob("out.zarr.run/journal/**/*.jsonl")), 60)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert jobs()
    segments = [path.read_text() for path in tmp_path.glob("out.zarr.run/journal/**/*.jsonl")]
    recorded = sum(line.startswith("[") for text in segments for line in text.splitlines())
    assert recorded > 0
    values["cluster"] = {"kind": "local", "workers": 1}
    summary = segment(values, open_executor=lambda _, stages: SerialExecutor(stages))
    assert (summary.status, summary.num_tasks) == ("complete", NUM_TASKS - recorded)
    assert digest(tmp_path) == truth
    wait_for_an_empty_queue(120)


def test_jobs_that_slurm_refuses(slurm, image, tmp_path):
    group = {**GROUP, "queue": "no-such-partition"}
    with pytest.raises(WorkersUnavailable, match=r"submitting jobs with sbatch.*[Ii]nvalid partition"):
        segment(values_of(image, tmp_path, cpu_workers=group))
    assert not jobs()


def test_jobs_that_die_at_once(slurm, image, tmp_path):
    group = {**GROUP, "queue": "cpu", "prologue": ["exit 3"]}
    with pytest.raises(WorkersUnavailable, match=rf"3 jobs in a row ended before their worker came.*{tmp_path}/logs"):
        segment(values_of(image, tmp_path, cpu_workers=group))


def test_jobs_that_never_start(slurm, image, tmp_path):
    group = {**GROUP, "queue": "cpu", "directives": ["--begin=now+1hour"]}
    with pytest.raises(WorkersUnavailable, match=r"for 3 s there was no worker that offers device"):
        segment(values_of(image, tmp_path, cpu_workers=group, worker_timeout_minutes=0.05))
    wait_for_an_empty_queue(10)


def test_driver_and_workers_in_one_allocation(slurm, image, truth, tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**values_of(image, tmp_path), "cluster": {"kind": "local"}}))
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SAM4EM_INTERFACE": "lo",
        "SAM4EM_WORKER_MEMORY": "1GiB",
    }
    command = ["sbatch", "--ntasks=2", "--cpus-per-task=1", "--time=5", "--partition=cpu"]
    command += ["--output=run.log", str(ROOT / "deploy" / "slurm" / "run.sbatch"), str(tmp_path / "run.yaml")]
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    wait_for_an_empty_queue(200)
    assert "complete" in (tmp_path / "run.log").read_text()
    assert digest(tmp_path) == truth
    workers = list(tmp_path.glob("sam4em-*/worker-*.log"))
    assert len(workers) == 2


# A driver that takes a tenth of a second over every task: half a minute in all, so that a signal finds it at work.
DRIVER = """
import sys
import time
from pathlib import Path
from pipeline.config import RunConfig
from pipeline.run.launch import run_config
from pipeline.run.loop import TaskLoop
from pipeline.telemetry import SilentReporter

finish = TaskLoop._finish

def slowly(*arguments):
    time.sleep(0.1)
    finish(*arguments)

if __name__ == "__main__":
    TaskLoop._finish = slowly
    config = RunConfig.model_validate_json(Path(sys.argv[1]).read_text())
    run_config(config, reporter=SilentReporter())
"""


def start_driver(folder, values):
    script, document = folder / "drive.py", folder / "config.json"
    script.write_text(DRIVER)
    document.write_text(RunConfig.model_validate(values).model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(script), str(document)], env=environment)


def make_certificates(folder):
    """Make a certificate that is its own authority."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=sam4em"]
    subprocess.run(
        [*command, "-keyout", folder / "key.pem", "-out", folder / "cert.pem"], check=True, capture_output=True
    )
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    return {"ca_file": cert, "cert_file": cert, "key_file": key}


def wait_until(condition, limit_s):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def wait_for_an_empty_queue(limit_s):
    wait_until(lambda: not jobs(), limit_s)
