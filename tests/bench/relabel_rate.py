"""match + relabel + write of a whole run against bare read + map + write of the same chunks in one process.

One worker with one thread labels 256 x 1024 x 1024 voxels in 32 blocks; its stage times come from the run's summary.
The bare loop then reads the same local labels, looks them up in one table and writes the same chunks.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import BLOCK, SHAPE, make_volume, report

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.geometry import BlockGrid, Box
from pipeline.run import api
from pipeline.run.prepare import prepare_run
from pipeline.stages.layout import labels_spec
from pipeline.storage import LabelVolumeSpec, OmeZarrLabels, ScratchArray

STAGES = ("match", "resolve", "relabel")
CHUNK = (64, 128, 128)


def main() -> None:
    """Measure the run, then the bare loop, and compare their rates."""
    with tempfile.TemporaryDirectory(prefix="sam4em-bench-") as name:
        folder = Path(name)
        config = run_config(make_volume(folder / "large.zarr"), folder / "labels.zarr")
        seconds = api.run_config(config)["seconds_by_stage"]
        ours = sum(seconds[stage] for stage in STAGES)
        bare = bare_loop(config, folder / "bare.zarr")
        shutil.rmtree(folder / "labels.zarr")
    voxels = SHAPE[0] * SHAPE[1] * SHAPE[2]
    report(
        {
            "seconds_by_stage": seconds,
            "mvoxel_per_s_match_resolve_relabel": voxels / ours / 1e6,
            "mvoxel_per_s_bare": voxels / bare / 1e6,
            "ratio": bare / ours,
        }
    )


def run_config(image: Path, output: Path) -> RunConfig:
    """Give a run of one worker and one thread."""
    return parse_config(
        {
            "image": {"url": str(image), "voxel_size_zyx_nm": [8, 8, 8]},
            "outputs": [{"url": str(output), "chunk_zyx": list(CHUNK), "num_mips": 1}],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": list(BLOCK)},
            "cluster": {"workers": 1, "threads_per_worker": 1},
        },
        RunConfig,
        "benchmark",
    )


def bare_loop(config: RunConfig, output: Path) -> float:
    """Read local labels, map, write; give the seconds."""
    plan = prepare_run(config).plan
    labels = ScratchArray(labels_spec(plan, plan.classes[0]))
    writer = OmeZarrLabels(LabelVolumeSpec(str(output), SHAPE, (8.0, 8.0, 8.0), CHUNK))
    writer.create()
    lut = np.arange(1 << 16, dtype=np.uint64)
    grid = BlockGrid(Box.of_shape(SHAPE), BLOCK)
    start = time.perf_counter()
    for index in range(len(grid)):
        box = grid.box(index)
        writer.write(0, box, lut[labels.read(box)])
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
