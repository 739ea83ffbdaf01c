"""One run of a config: is the model kept busy, how much does it compute twice, does the plan's memory hold?

    python tests/bench/busy.py CONFIG

Start-up is not in the summary's wall time: it begins with the first task.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measure import report

from pipeline.config import read_config
from pipeline.run import api
from pipeline.run.estimate import count_figures
from pipeline.run.prepare import prepare_run


def main(path: Path) -> None:
    """Run the config from nothing and compare its summary with its plan."""
    config = read_config(path)
    planned = count_figures(prepare_run(config))
    summary = api.run_config(config, restart=True)
    counters = summary["counters"]
    peaks = list(summary["peak_bytes_by_worker"].values())
    report(
        {
            "summary": summary,
            "planned": planned,
            "wall_times_workers_over_model_seconds": summary["wall_times_workers_per_model_second"],
            "model_voxels_over_core_voxels": planned["model_voxels_per_core_voxel"],
            "measured_model_voxels": sum(count for name, count in counters.items() if name.endswith(".model_voxels")),
            "worker_peak_over_projected": [peak / planned["worker_host_bytes"] for peak in peaks],
        }
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
