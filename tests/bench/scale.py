"""One driver and very many blocks.

    python tests/bench/scale.py cluster [BLOCKS]       a stub segmenter over so many blocks on two local workers;
                                                       default 100,000
    python tests/bench/scale.py simulate [BLOCKS]      no cluster: a real plan of a petavoxel through plan, window and
                                                       journal; tasks end at once; default 2e7 label blocks

`cluster` is the driver as it is: lease, manifest, journal on disk, Dask's scheduler (in the driver's process, as for
`cluster.kind: local`), workers that do nothing. Resident memory of driver and scheduler is read when 10,000 blocks are
done and again at the end. `simulate` hands every task of a plan out and takes it back, with journal records as long as
real ones; BLOCKS cuts it short, the plan and its done maps stay as large as they are.
"""

from __future__ import annotations

import gc
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil
from measure import report

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.geometry import Box
from pipeline.image import GreyRange
from pipeline.ledger import Journal, Lease, RunManifest, UnitSum
from pipeline.run.cluster.local import LocalWorkers, local_cluster
from pipeline.run.completion import Completion, Executor, TaskResult
from pipeline.run.dask_executor import DaskExecutor
from pipeline.run.driver import Run, drive
from pipeline.run.loop import Tally, TaskLoop
from pipeline.run.planner import make_plan
from pipeline.run.run_stages import stage_specs
from pipeline.run.stream import StageCounts, StageSpec, Task
from pipeline.segmenter import describe_segmenter
from pipeline.stages.plan import RunPlan
from pipeline.storage import LevelInfo, ObjectStore, VolumeInfo
from pipeline.telemetry import SilentReporter

BLOCK = (64, 1024, 1024)
EARLY_BLOCKS = 10_000
"""Memory is compared with what it was when so many were done."""
PETAVOXEL = (104_000, 109_000, 118_000)
"""2.0e7 blocks of 64 x 1024 x 1024 voxels, 1.34e15 voxels."""
VOXEL_NM = (8.0, 8.0, 8.0)


class NoRoom:
    """The stages on a worker: the segmenter is a stub, nothing is read or written."""

    def run(self, task: Task) -> TaskResult:
        """Say what a real block would say."""
        return TaskResult(
            units=(UnitSum("output-0/0", (task.index, 0, 0), 0x12345678),),
            seconds={"read_s": 0.0, "model_s": 1e-6, "write_s": 0.0},
            counters={"voxels": 1, "model_voxels": 1},
        )

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class StubStages:
    """One stage of blocks that cost nothing; its own places, too."""

    num_blocks: int

    def specs(self) -> Sequence[StageSpec]:
        """See `StageSet.specs`."""
        return [StageSpec("predict", self.num_blocks, lane="device")]

    def create(self) -> None:
        """Nothing to create."""

    def open(self) -> NoRoom:
        """See `StageSet.open`."""
        return NoRoom()

    def num_units(self) -> Mapping[str, int]:
        """No output."""
        return {}

    def check_unit(self, unit: UnitSum) -> None:
        """Nothing to check."""

    def mark(self, *, complete: bool) -> None:
        """Nothing to mark."""

    def delete_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to delete."""

    def delete_intermediates(self) -> None:
        """Nothing to delete."""


@dataclass
class MemoryMarks(SilentReporter):
    """Notes when tasks were done, and the memory of this process."""

    marks: dict[int, tuple[float, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """See `SilentReporter`."""
        super().__init__()

    def update(self, progressed: Any) -> None:
        """Take note at every 10,000 blocks."""
        done = progressed.stages["predict"].done
        step = done // EARLY_BLOCKS * EARLY_BLOCKS
        if step and step not in self.marks:
            gc.collect()
            self.marks[step] = (time.monotonic(), resident_bytes())


def run_on_cluster(num_blocks: int) -> dict[str, Any]:
    """Drive a run of blocks that cost nothing on two local workers."""
    stages = StubStages(num_blocks)

    @contextmanager
    def open_executor() -> Iterator[Executor]:
        with (
            local_cluster(LocalWorkers(2, 2, 2 * 2**30)) as opened,
            DaskExecutor(opened.client, stages, tasks_per_worker=4, offers=opened.offers) as executor,
        ):
            yield executor

    marks = MemoryMarks()
    with tempfile.TemporaryDirectory(prefix="sam4em-bench-") as folder:
        manifest = RunManifest({}, {}, {}, {}, {"predict": num_blocks}, None, 1)
        cpu = time.process_time()
        summary = drive(Run(ObjectStore(folder), manifest, stages, stages), open_executor, reporter=marks)
        cpu = time.process_time() - cpu
        journal = [path.stat().st_size for path in Path(folder).rglob("*.jsonl")]
    first, last = min(marks.marks), max(marks.marks)
    (first_s, first_bytes), (last_s, last_bytes) = marks.marks[first], marks.marks[last]
    return {
        "blocks": num_blocks,
        "blocks_per_second": num_blocks / summary.wall_seconds,
        "blocks_per_second_after_the_first_10000": (last - first) / max(last_s - first_s, 1e-9),
        "driver_and_scheduler_cpu_ms_per_block": 1000 * cpu / num_blocks,
        f"resident_bytes_at_{first}": first_bytes,
        f"resident_bytes_at_{last}": last_bytes,
        "growth_percent": 100 * (last_bytes / first_bytes - 1),
        "journal_bytes_per_block": sum(journal) / num_blocks,
        "journal_segments": len(journal),
    }


class EndsAtOnce:
    """An executor whose tasks are done as soon as they are handed out."""

    def __init__(self, plan: RunPlan, stop_after: int) -> None:
        self.num_done = 0
        self._queue: list[Task] = []
        self._plan = plan
        self._stop_after = stop_after

    @property
    def windows(self) -> Mapping[str, int]:
        """A window of a thousand workers."""
        return {"device": 4000, "cpu": 4000}

    def is_over(self) -> bool:
        """Whether as many tasks as were asked for are done."""
        return self.num_done >= self._stop_after

    def submit(self, tasks: Sequence[Task]) -> None:
        """See `Executor.submit`."""
        self._queue.extend(tasks)

    def wait(self, timeout_s: float) -> list[Completion]:
        """See `Executor.wait`."""
        del timeout_s
        done, self._queue = self._queue, []
        self.num_done += len(done)
        return [Completion(task, result_of(task), None, f"tcp://10.0.0.1:{task.index % 1000}", 60.0) for task in done]

    def cancel(self) -> int:
        """See `Executor.cancel`."""
        dropped, self._queue = len(self._queue), []
        return dropped

    def replace_worker(self, worker: str) -> None:
        """See `Executor.replace_worker`."""

    def __enter__(self) -> Self:
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to stop."""


def result_of(task: Task) -> TaskResult:
    """Say what a real task would say: relabel and pyramid own a write unit each, here one of sharded output."""
    owns = task.stage in ("relabel", "pyramid")
    units = (UnitSum("output-0/0", (task.index % 1000, task.index % 99, task.index), 0x12345678),) if owns else ()
    return TaskResult(units=units, seconds={"read_s": 1.0, "compute_s": 1.0}, counters={"voxels": 1})


def simulate(num_blocks: int) -> dict[str, Any]:
    """Plan a petavoxel and pass its tasks through window and journal; the first `num_blocks` blocks' worth of them."""
    start = time.process_time()
    plan = petavoxel_plan()
    plan_s = time.process_time() - start
    specs = stage_specs(plan)
    num_label = len(plan.label_grid)
    counts = {spec.name: spec.num_tasks for spec in specs}
    share = min(1.0, num_blocks / num_label)
    before = resident_bytes()
    with tempfile.TemporaryDirectory(prefix="sam4em-bench-") as folder:
        store = ObjectStore(folder)
        journal = Journal(store, counts)
        maps_bytes = resident_bytes() - before
        executor = EndsAtOnce(plan, int(share * (counts["label"] + counts["match"])))
        with Lease(store) as lease:
            start = time.process_time()
            loop = TaskLoop(specs, journal, lease, executor, retries=0, max_failed_tasks=1, on_change=quiet)
            loop.run(executor.is_over)
            loop_s = time.process_time() - start
        after = resident_bytes()
        size = sum(path.stat().st_size for path in Path(folder, "journal").rglob("*.jsonl"))
        start = time.process_time()
        records = Journal(store, counts).replay()
        replay_s = time.process_time() - start
    per_task = size / executor.num_done
    return {
        "voxels": float(np.prod([float(extent) for extent in PETAVOXEL])),
        "label_blocks": num_label,
        "tasks": counts,
        "tasks_in_all": sum(counts.values()),
        "plan_cpu_s": plan_s,
        "plan_pickle_bytes": len(pickle.dumps(plan)),
        "done_maps_and_journal_bytes": maps_bytes,
        "simulated_tasks": executor.num_done,
        "window_and_journal_cpu_us_per_task": 1e6 * loop_s / executor.num_done,
        "resident_growth_bytes_while_simulating": after - before - maps_bytes,
        "journal_bytes_per_task": per_task,
        "journal_bytes_of_the_whole_run": per_task * sum(counts.values()),
        "replay_cpu_us_per_record": 1e6 * replay_s / max(1, records),
        "replay_cpu_s_of_the_whole_run": replay_s / max(1, records) * sum(counts.values()),
    }


def petavoxel_plan() -> RunPlan:
    """Plan 1.3e15 voxels with `threshold`: nothing is opened, so nothing has to be there."""
    values = {
        "image": {"url": "s3://bucket/em.zarr"},
        "outputs": [{"url": "s3://bucket/seg"}],
        "segmenter": {"kind": "threshold"},
        "plan": {"block_zyx": list(BLOCK), "task_memory_gib": 4.0},
    }
    config = parse_config(values, RunConfig, "benchmark")
    info = VolumeInfo(
        url="s3://bucket/em.zarr",
        format="ome-zarr",
        shape_zyx=PETAVOXEL,
        dtype=np.dtype(np.uint8),
        chunk_zyx=(64, 128, 128),
        voxel_size_zyx_nm=VOXEL_NM,
        levels=(LevelInfo("0", PETAVOXEL, VOXEL_NM),),
    )
    demand = describe_segmenter(config.segmenter, VOXEL_NM)
    plan = make_plan(config, info, VOXEL_NM, demand, GreyRange(0, 255), "s3://bucket/seg.run")
    return plan if plan.output_domain == Box.of_shape(PETAVOXEL) else sys.exit("the plan covers another region")


def quiet(counts: Mapping[str, StageCounts], tally: Tally) -> None:
    """Tell nobody."""


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """Measure what the command line names."""
    mode = sys.argv[1] if len(sys.argv) > 1 else "cluster"
    given = int(float(sys.argv[2])) if len(sys.argv) > 2 else None
    if mode == "cluster":
        report({"cluster": run_on_cluster(given or 100_000)})
    else:
        report({"simulate": simulate(given or 2 * 10**7)})


if __name__ == "__main__":
    main()
