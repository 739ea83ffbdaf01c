"""SIGKILL of the driver, and of a worker, in the middle of a run with a real model; then the same command again.

    python tests/bench/kill.py IMAGE FOLDER [MODEL]

Three runs of `sam4em segment`: undisturbed, with the driver killed, with a worker killed. Digests of all voxels of
mip 0 must be equal; what the second command did again is counted.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from measure import report

from pipeline.geometry import BlockGrid, Box
from pipeline.run.api import status_report
from pipeline.storage import open_volume

KILL_AFTER = {"predict": 2}
"""Tasks done, per stage, before the signal is sent."""


def start(image: str, output: Path, model: str) -> subprocess.Popen[bytes]:
    """Start the command a user would give."""
    command = [sys.executable, "-m", "pipeline.cli", "segment", image, str(output), "--model", model]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until_under_way(driver: subprocess.Popen[bytes], output: Path) -> dict[str, int]:
    """Wait until some blocks are done; give how many, per stage."""
    while driver.poll() is None:
        time.sleep(0.5)
        if not Path(f"{output}.run/manifest.json").exists():
            continue
        done = {name: int(stage["done"]) for name, stage in status_report(str(output))["stages"].items()}
        if all(done[name] >= count for name, count in KILL_AFTER.items()):
            return done
    raise SystemExit("the run was over before it could be disturbed; use a larger image")


def a_worker_of(driver: subprocess.Popen[bytes]) -> int:
    """Process id of one worker: of the driver's descendants the one with the most memory."""
    processes = psutil.Process(driver.pid).children(recursive=True)
    return int(max(processes, key=lambda process: process.memory_info().rss).pid)


def digest(output: Path) -> str:
    """Digest of all ids of mip 0."""
    volume = open_volume(str(output), kind="labels")
    found = hashlib.sha256()
    for index in range(len(grid := BlockGrid(Box.of_shape(volume.info.shape_zyx), (32, 1 << 20, 1 << 20)))):
        found.update(volume.read(grid.box(index)).tobytes())
    return found.hexdigest()[:16]


def main(image: str, folder: Path, model: str) -> None:
    """Disturb two runs and compare them with one that was not."""
    calm = folder / "calm.zarr"
    start(image, calm, model).wait()

    killed = folder / "killed.zarr"
    driver = start(image, killed, model)
    done_before = wait_until_under_way(driver, killed)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    code = start(image, killed, model).wait()

    widowed = folder / "widowed.zarr"
    driver = start(image, widowed, model)
    wait_until_under_way(driver, widowed)
    os.kill(a_worker_of(driver), signal.SIGKILL)
    code_widowed = driver.wait()

    digests = {output.stem: digest(output) for output in (calm, killed, widowed)}
    results: dict[str, Any] = {
        "digests": digests,
        "equal": len(set(digests.values())) == 1,
        "done_when_the_driver_was_killed": done_before,
        "exit_codes": {"same command again": code, "worker killed": code_widowed},
    }
    report(results)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "mito-lucchi")
