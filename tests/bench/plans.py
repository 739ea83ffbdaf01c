"""What the memory of a task buys: blocks that share less work, by the plan of a large volume.

    python tests/bench/plans.py MODEL [GIB ...]

Plans an empty volume of 2048 x 4096 x 4096 voxels of 10 nm; nothing is segmented.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measure import report

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.run.estimate import count_figures
from pipeline.run.prepare import prepare_run

SHAPE = (2048, 4096, 4096)


def main(model: str, gibibytes: list[float]) -> None:
    """Plan once per size of a task's memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "em.zarr"
        zarr.create_array(str(path), shape=SHAPE, dtype=np.uint8, chunks=(64, 256, 256))
        report({"model": model, "plans": [plan_of(path, model, size) for size in gibibytes]})


def plan_of(path: Path, model: str, gibibytes: float) -> dict[str, Any]:
    """Give the block, and what is computed and read for each voxel of the volume."""
    values = {
        "image": {"url": str(path), "voxel_size_zyx_nm": [10, 10, 10]},
        "outputs": [{"url": str(path.with_name("out.zarr"))}],
        "segmenter": {"kind": "sam4em", "model": model},
        "plan": {"task_memory_gib": gibibytes},
    }
    figures = count_figures(prepare_run(parse_config(values, RunConfig, "plans.py")))
    return {
        "task_memory_gib": gibibytes,
        "predict_block_zyx": figures["predict_block_zyx"],
        "model_voxels_per_core_voxel": round(figures["model_voxels_per_core_voxel"], 2),
        "bytes_read_per_voxel": round(figures["bytes_read"] / np.prod(SHAPE, dtype=float), 2),
    }


if __name__ == "__main__":
    main(sys.argv[1], [float(text) for text in sys.argv[2:]] or [2.0, 4.0, 8.0, 16.0])
