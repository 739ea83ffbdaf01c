"""What the benchmarks share: a volume of tubes, CPU seconds of a process tree, and a description of the machine."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from scipy import ndimage

SHAPE = (256, 1024, 1024)
BLOCK = (64, 256, 512)
CHUNK = (64, 128, 128)


@dataclass(frozen=True)
class Cost:
    """What a subprocess and everything it started cost."""

    wall_s: float
    cpu_s: float
    output: dict[str, Any]


def make_volume(path: Path, shape: tuple[int, int, int] = SHAPE, seed: int = 11) -> Path:
    """Write a uint8 volume, 255 inside some hundred bent bodies and 0 outside; the same for the same seed."""
    if path.exists():
        return path
    step = 8
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.standard_normal([n // step + 2 for n in shape]).astype(np.float32), 1.1)
    level = np.quantile(coarse, 0.9)
    array = zarr.create_array(
        store=str(path), shape=shape, chunks=CHUNK, dtype="uint8", dimension_names=["z", "y", "x"]
    )
    for z in range(0, shape[0], CHUNK[0]):
        part = coarse[z // step : (z + CHUNK[0]) // step + 2]
        fine = ndimage.zoom(part, step, order=1)[: CHUNK[0], : shape[1], : shape[2]]
        array[z : z + CHUNK[0]] = np.where(fine >= level, np.uint8(255), np.uint8(0))
    return path


def cost_of(arguments: list[str]) -> Cost:
    """Run a Python script that prints one JSON object last, and measure its whole process tree.

    CPU seconds are those of the process and of every descendant that was waited for, which Dask's nannies are.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return Cost(wall, cpu, json.loads(result.stdout.strip().splitlines()[-1]))


def report(results: dict[str, Any]) -> None:
    """Print results with the machine they were measured on."""
    plain = {name: asdict(value) if isinstance(value, Cost) else value for name, value in results.items()}
    sys.stdout.write(json.dumps({"machine": machine(), **plain}, indent=2) + "\n")


def machine() -> dict[str, Any]:
    """Describe the hardware and the versions that matter."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "zarr": zarr.__version__,
    }
