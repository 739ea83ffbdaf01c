"""Time and memory of resolve.

    python tests/bench/resolve.py flat [LABELS EDGES]     one graph: objects, ids, maps; default 1e7 and 5e6
    python tests/bench/resolve.py tree [LABELS EDGES]     the stage's own tasks over groups of blocks; default 1e8, 5e7

`tree` runs every task of `pipeline.stages.resolve` in this process, one after the other. The tables of blocks and faces
are not on a disk: they are made up when they are read, the same each time, and what the tasks write for each other
lies in a temporary folder. For every level it prints the largest job: its CPU seconds, the tables' making included, and
the resident memory that it added to what was there before it began.
"""

from __future__ import annotations

import gc
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measure import report
from numpy.typing import NDArray

from pipeline.config import RunConfig
from pipeline.geometry import BlockGrid, Box, GroupTree, leaf_of
from pipeline.labels.groups import GroupGraph, deal_ids, join_nodes, rank_objects
from pipeline.labels.resolve import make_lut
from pipeline.run.prepare import prepare_run
from pipeline.run.work import peak_memory_bytes
from pipeline.stages import resolve
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan
from pipeline.storage import ObjectStore, StorageOptions, pack_table

LABELS_PER_BLOCK = 12_000
BLOCKS_PER_LEAF = 512
FLAT = (10_000_000, 5_000_000)
TREE = (100_000_000, 50_000_000)


def main() -> None:
    """Measure what the command line names."""
    mode = sys.argv[1] if len(sys.argv) > 1 else "flat"
    given = [int(float(text)) for text in sys.argv[2:4]]
    if mode == "flat":
        report({"flat": measure_flat(*(given or FLAT))})
    else:
        report({"tree": measure_tree(*(given or TREE))})


def measure_flat(num_labels: int, num_edges: int) -> dict[str, Any]:
    """Solve one graph and deal its ids."""
    rng = np.random.default_rng(1)
    lower = rng.integers(0, num_labels, num_edges)
    upper = np.minimum(num_labels - 1, lower + rng.integers(1, 40 * LABELS_PER_BLOCK, num_edges))
    before = resident_bytes()
    start, start_cpu = time.perf_counter(), time.process_time()
    joined = join_nodes(GroupGraph(num_labels, lower, upper, {}), is_root=True)
    rows = rank_objects(joined.is_open, np.ones(joined.num_objects, np.bool_))
    ids = deal_ids(joined.is_open, rows, 1, np.empty(0, np.uint64))
    for first in range(0, num_labels, LABELS_PER_BLOCK):
        make_lut(ids, joined.objects[first : first + LABELS_PER_BLOCK])
    return {
        "labels": num_labels,
        "edges": num_edges,
        "objects": joined.num_objects,
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - start_cpu,
        "resident_bytes_beyond_the_input": peak_bytes() - before,
    }


class MadeUpTables(ObjectStore):
    """Gives statistics and overlap tables of blocks that do not exist; everything else lies in a folder."""

    def __init__(self, url: str, labels_per_block: int, edges_per_face: int) -> None:
        super().__init__(url)
        self._labels_per_block = labels_per_block
        self._edges_per_face = edges_per_face

    def get(self, key: str) -> bytes:
        """Make a table up, or read an object."""
        folder, _, rest = key.partition("/")
        if folder == "statistics":
            return pack_table(self._statistics())
        if folder == "edges":
            thousands, _, last = rest.partition("/")
            block, axis = last.split("-")
            return pack_table(self._edges(int(thousands) * 1000 + int(block), int(axis)))
        return super().get(key)

    def _statistics(self) -> dict[str, NDArray[Any]]:
        count = self._labels_per_block
        one = np.ones(count, np.uint64)
        boxes = np.ones((count, 3), np.int64)
        return {
            "class0_voxels": one,
            "class0_box_start": boxes,
            "class0_box_stop": boxes + 1,
            "class0_coordinate_sum": boxes.astype(np.uint64),
            "class0_probability_sum": one,
            "class0_has_seed": np.ones(count, np.bool_),
        }

    def _edges(self, block: int, axis: int) -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng([block, axis])
        count = self._edges_per_face
        lower = np.sort(rng.integers(1, self._labels_per_block + 1, count)).astype(np.uint64)
        upper = rng.integers(1, self._labels_per_block + 1, count).astype(np.uint64)
        one = np.ones(count, np.uint64)
        columns = {"lower": lower, "upper": upper, "num_voxels": one, "lower_voxels": one, "upper_voxels": one}
        return {f"class0_{name}": values for name, values in columns.items()} | {"class0_first_voxel": one}


def measure_tree(num_labels: int, num_edges: int) -> dict[str, Any]:
    """Carry out every task of the stage."""
    with tempfile.TemporaryDirectory(prefix="sam4em-bench-") as name:
        plan = make_plan(Path(name), num_labels)
        shape = plan.label_grid.shape
        num_faces = sum(len(plan.label_grid) // shape[axis] * (shape[axis] - 1) for axis in range(3))
        tables = MadeUpTables(plan.run_url, LABELS_PER_BLOCK, round(num_edges / num_faces))
        context = TaskContext(plan, options=StorageOptions())
        # What the tasks find where `objects` and `kept` would be opened.
        context.__dict__.update(objects=tables, kept=tables)
        levels: dict[str, dict[str, float]] = {}
        start, start_cpu = time.perf_counter(), time.process_time()
        for index in resolve.tasks(plan):
            measure_job(index, plan, context, levels)
        counts = [int(job.get("segments", 0)) for job in levels.values()]
        return {
            "labels": LABELS_PER_BLOCK * len(plan.label_grid),
            "edges": round(num_edges / num_faces) * num_faces,
            "blocks": len(plan.label_grid),
            "groups": plan.group_tree.num_nodes,
            "objects": sum(counts),
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - start_cpu,
            "resident_bytes_of_the_process": peak_bytes(),
            "levels": levels,
        }


def measure_job(index: int, plan: RunPlan, context: TaskContext, levels: dict[str, dict[str, float]]) -> None:
    """Carry out one task and keep the largest figures of its level."""
    step, node = resolve.locate(index, plan)
    level = plan.group_tree.locate(node)[0]
    row = levels.setdefault(f"{step} level {level}", {"jobs": 0, "cpu_s": 0.0, "bytes": 0, "segments": 0})
    before = reset_peak()
    start = time.process_time()
    counters = resolve.run(index, plan, context).counters
    row["cpu_s"] = max(row["cpu_s"], time.process_time() - start)
    row["bytes"] = max(row["bytes"], peak_memory_bytes() - before)
    row["jobs"] += 1
    row["segments"] += counters.get("segments", 0)


def make_plan(folder: Path, num_labels: int) -> RunPlan:
    """Plan a tiny run, and give it as many blocks as hold the labels, in a grid near to a cube."""
    zarr.create_array(str(folder / "em.zarr"), shape=(8, 8, 8), chunks=(8, 8, 8), dtype="uint8")[:] = 1
    config = RunConfig.model_validate(
        {
            "image": {"url": str(folder / "em.zarr"), "voxel_size_zyx_nm": [8, 8, 8]},
            "outputs": [{"url": str(folder / "out.zarr"), "chunk_zyx": [8, 8, 8], "num_mips": 1}],
            "segmenter": {"kind": "threshold"},
        }
    )
    num_blocks = -(-num_labels // LABELS_PER_BLOCK)
    side = round(num_blocks ** (1 / 3))
    shape = (-(-num_blocks // (side * side)), side, side)
    grid = BlockGrid(Box.of_shape(shape), (1, 1, 1))
    return replace(
        prepare_run(config).plan, label_grid=grid, group_tree=GroupTree(shape, leaf_of(shape, BLOCKS_PER_LEAF))
    )


def peak_bytes() -> int:
    """Largest resident memory of this process so far, whatever `reset_peak` forgot."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak() -> int:
    """Forget the largest resident memory so far; gives what is resident now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return resident_bytes()


def resident_bytes() -> int:
    """Resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
