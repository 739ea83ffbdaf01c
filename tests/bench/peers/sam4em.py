"""sam4em's `threshold` run on two workers, one output."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.run import launch
from pipeline.telemetry import SilentReporter

BLOCK = [64, 256, 512]
CHUNK = [64, 128, 128]


def main(path: Path, folder: Path) -> None:
    """Segment with `threshold` and count the objects."""
    output = folder / "labels.zarr"
    config = parse_config(
        {
            "image": {"url": str(path), "voxel_size_zyx_nm": [8, 8, 8]},
            "outputs": [{"url": str(output), "chunk_zyx": CHUNK, "num_mips": 1}],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": BLOCK},
            "cluster": {"workers": 2},
        },
        RunConfig,
        "benchmark",
    )
    summary = launch.run_config(config, reporter=SilentReporter())
    found = {
        "objects": int(pq.read_metadata(f"{output}.run/segments.parquet").num_rows),
        "peak_bytes_of_a_worker": max(summary.peak_bytes_by_worker.values()),
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__" and sys.argv[1] == "run":
    main(Path(sys.argv[2]), Path(sys.argv[3]))
