"""Random kills of workers, drivers and schedulers over one run: does it end with the same voxels?

    python tests/bench/chaos.py IMAGE FOLDER [KILLS] [MODEL]

IMAGE is a volume, MODEL `threshold` (default) or a model's name. One run is left in peace. The other is driven by
`sam4em run` with a scheduler, two workers and a driver that are processes of their own, as on a cluster. At random
moments one of them gets SIGKILL; whatever is missing is started again, the driver by the same command. In the end the
digests of all ids and of the instance table must be equal.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from measure import report

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.geometry import BlockGrid, Box
from pipeline.run.api import status_report
from pipeline.run.prepare import prepare_run
from pipeline.storage import open_volume

KILLS = 30
NUM_WORKERS = 2
SEED = 20
PAUSE_S = (1.0, 6.0)
"""Shortest and longest time between two kills."""
ROLES = ("worker 0", "worker 1", "driver", "scheduler")
WEIGHTS = (5, 5, 3, 2)
"""How often each is chosen: machines with workers are many."""
BLOCK = [24, 128, 128]
PREDICT_BLOCK_YX = [128, 256]
"""In the model's own voxels; by its windows in z. As planned, a volume of this size is a handful of blocks."""


@dataclass
class Cast:
    """The processes of one run; each is started when it is missing."""

    folder: Path
    config: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    exits: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """Whether the run is complete."""
        driver = self.processes.get("driver")
        return driver is not None and driver.poll() == 0

    def start_missing(self) -> None:
        """Start what is not running; a driver that ended without a kill is noted and started again, too."""
        for role in ("scheduler", *ROLES[:NUM_WORKERS], "driver"):
            process = self.processes.get(role)
            if process is not None and process.poll() is None:
                continue
            if process is not None and process.returncode == 0 and role == "driver":
                return
            if process is not None:
                self.exits[f"{role.split()[0]} {process.returncode}"] += 1
                # Who cannot be started yet is found missing again, and not counted again.
                del self.processes[role]
            if role == "scheduler":
                self._scheduler_file.unlink(missing_ok=True)
            elif not self._scheduler_file.exists():
                # What must find the scheduler waits for the next round.
                return
            self.processes[role] = self._start(role)

    def kill(self, role: str) -> bool:
        """Send SIGKILL; tells whether there was somebody."""
        process = self.processes.get(role)
        if process is None or process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True

    def end(self) -> None:
        """Leave nobody behind."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def _scheduler_file(self) -> Path:
        return self.folder / "scheduler.json"

    def _start(self, role: str) -> subprocess.Popen[bytes]:
        quiet = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
        common = ["--scheduler-file", str(self._scheduler_file), *quiet]
        commands = {
            "scheduler": ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common],
            "worker": [
                *("distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "2", "--no-nanny"),
                *("--resources", "device=2", "--death-timeout", "15", "--local-directory", str(self.folder), *common),
            ],
            "driver": ["pipeline.cli", "run", str(self.config)],
        }
        log = (self.folder / f"{role.replace(' ', '-')}.log").open("ab")
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "-m", *commands[role.split(maxsplit=1)[0]]], stdout=log, stderr=log, env=environment
        )


def write_config(image: str, output: Path, model: str, cluster: dict[str, Any]) -> Path:
    """Write the config of a run; many small blocks, so that a kill finds something at work."""
    threshold = {"kind": "threshold", "foreground": "dark", "smoothing_nm": 10.0}
    values: dict[str, Any] = {
        "image": {"url": image, "voxel_size_zyx_nm": [5, 5, 5]},
        "outputs": [{"url": str(output), "chunk_zyx": [24, 64, 64], "num_mips": 3}],
        "segmenter": threshold if model == "threshold" else {"kind": "sam4em", "model": model, "device": "cpu"},
        "plan": {"block_zyx": BLOCK},
        "cluster": cluster,
    }
    if model != "threshold":
        prepared = prepare_run(parse_config({**values, "cluster": {"workers": 1}}, RunConfig, "chaos"))
        depth = prepared.demand.unit_zyx(prepared.plan.working_domain.shape)[0]
        values["plan"]["predict_block_zyx"] = [depth, *PREDICT_BLOCK_YX]
    path = output.parent / f"{output.stem}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def digest(output: Path) -> str:
    """Digest of all ids of every level, and of the instance table."""
    found = hashlib.sha256()
    for level in range(3):
        volume = open_volume(str(output), kind="labels", level=level)
        grid = BlockGrid(Box.of_shape(volume.info.shape_zyx), (32, 1 << 20, 1 << 20))
        for index in range(len(grid)):
            found.update(volume.read(grid.box(index)).tobytes())
    table = pq.read_table(f"{output}.run/segments.parquet")
    found.update(str(table.to_pydict()).encode())
    return found.hexdigest()[:16]


def journal_bytes(output: Path) -> int:
    """Size of the journal: a run that was hurt must have moved before it is hurt again, or no kill would meet work."""
    return sum(path.stat().st_size for path in Path(f"{output}.run", "journal").rglob("*.jsonl"))


def main(image: str, folder: Path, num_kills: int, model: str) -> None:
    """Run once in peace and once not."""
    folder.mkdir(parents=True, exist_ok=True)
    calm = folder / "calm.zarr"
    quiet = write_config(image, calm, model, {"kind": "local", "workers": NUM_WORKERS})
    subprocess.run([sys.executable, "-m", "pipeline.cli", "run", str(quiet)], check=True, stdout=subprocess.DEVNULL)
    stormy = folder / "stormy.zarr"
    cluster = {"kind": "scheduler", "file": str(folder / "scheduler.json"), "worker_timeout_minutes": 1.0}
    cast = Cast(folder, write_config(image, stormy, model, cluster))
    rng, killed = random.Random(SEED), Counter[str]()
    start = time.monotonic()
    next_kill, seen_bytes = start + rng.uniform(*PAUSE_S), 0
    try:
        while not cast.is_over:
            cast.start_missing()
            time.sleep(0.2)
            is_moving = journal_bytes(stormy) > seen_bytes
            if is_moving and time.monotonic() > next_kill and killed.total() < num_kills:
                (role,) = rng.choices(ROLES, WEIGHTS)
                killed[role.split()[0]] += cast.kill(role)
                next_kill, seen_bytes = time.monotonic() + rng.uniform(*PAUSE_S), journal_bytes(stormy)
    finally:
        cast.end()
    digests = {"calm": digest(calm), "stormy": digest(stormy)}
    report(
        {
            "image": image,
            "model": model,
            "kills": dict(killed),
            "kills_in_all": killed.total(),
            "exits": dict(cast.exits),
            "wall_s": time.monotonic() - start,
            "digests": digests,
            "equal": len(set(digests.values())) == 1,
            "tasks": {name: stage["total"] for name, stage in status_report(str(stormy))["stages"].items()},
        }
    )


if __name__ == "__main__":
    rest = sys.argv[3:]
    main(
        sys.argv[1],
        Path(sys.argv[2]).absolute(),
        int(rest[0]) if rest else KILLS,
        rest[1] if len(rest) > 1 else "threshold",
    )
