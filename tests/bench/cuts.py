"""The same volume in 1, 2 and at least 24 blocks, and with 1 and 2 workers: are the voxels the same?

    python tests/bench/cuts.py IMAGE FOLDER [MODEL]

Prints a digest of the probabilities of each cut, whether the segmentations are equal up to renaming, and a digest of
the ids with 1 and with 2 workers. FOLDER takes the outputs; a run that is there already goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
from measure import report

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.geometry import BlockGrid, Box
from pipeline.run import api
from pipeline.run.prepare import prepare_run
from pipeline.stages.layout import probabilities_spec
from pipeline.storage import ScratchArray, open_volume


def config(image: str, output: Path, model: str, workers: int, **plan: list[int] | float) -> RunConfig:
    """Give a run's config; one tile per model call, so that small blocks waste no slot."""
    values: dict[str, Any] = {
        "image": {"url": image},
        "outputs": [{"url": str(output)}],
        "segmenter": {"kind": "sam4em", "model": model, "batch_tiles": 1},
        "plan": {"task_memory_gib": 8.0, **plan},
        "cluster": {"workers": workers},
    }
    return parse_config(values, RunConfig, "benchmark")


def cuts(image: str, folder: Path, model: str) -> dict[str, RunConfig]:
    """Give the configs that are compared: the whole volume, two slabs, and blocks that cut windows and tiles apart."""
    prepared = prepare_run(config(image, folder / "none.zarr", model, 1))
    depth, stride_y, stride_x = prepared.demand.unit_zyx(prepared.plan.working_domain.shape)
    many = {"predict_block_zyx": [depth, 128, 256], "block_zyx": [64, 256, 256]}
    return {
        "1": config(
            image,
            folder / "one.zarr",
            model,
            1,
            predict_block_zyx=[depth * 8, stride_y * 8, stride_x * 8],
            block_zyx=[256, 1024, 1024],
        ),
        "2": config(
            image,
            folder / "two.zarr",
            model,
            2,
            predict_block_zyx=[depth * 3, stride_y * 8, stride_x * 8],
            block_zyx=[128, 1024, 1024],
        ),
        "many": config(image, folder / "many.zarr", model, 2, **many),
        "many, 1 worker": config(image, folder / "many-one-worker.zarr", model, 1, **many),
    }


def probability_digest(run: RunConfig) -> tuple[int, str]:
    """Give the number of predict blocks and a digest of all probabilities."""
    plan = prepare_run(run).plan
    array = ScratchArray(probabilities_spec(plan))
    digest = hashlib.sha256()
    for z in range(plan.working_domain.shape[0]):
        shape = plan.working_domain.shape
        digest.update(array.read(Box((z, 0, 0), (z + 1, shape[1], shape[2]))).tobytes())
    return len(plan.predict_grid or ()), digest.hexdigest()[:16]


def compare_labels(first: str, second: str) -> dict[str, Any]:
    """Say whether two label volumes are equal, and whether they are so up to renaming."""
    a, b = open_volume(first, kind="labels"), open_volume(second, kind="labels")
    grid = BlockGrid(Box.of_shape(a.info.shape_zyx), (32, 1024, 1024))
    pairs: set[tuple[int, int]] = set()
    is_equal = True
    for index in range(len(grid)):
        box = grid.box(index)
        left, right = a.read(box).ravel(), b.read(box).ravel()
        is_equal &= bool((left == right).all())
        # Ids of these volumes are small: two fit into one integer, which sorts a hundred times as fast as pairs.
        packed = np.unique(left << np.uint64(32) | right)
        pairs |= {(int(both >> np.uint64(32)), int(both & np.uint64(0xFFFFFFFF))) for both in packed}
    is_renamed = len({x for x, _ in pairs}) == len({y for _, y in pairs}) == len(pairs)
    return {"equal": is_equal, "equal_up_to_renaming": is_renamed, "objects": len({x for x, _ in pairs} - {0})}


def main(image: str, folder: Path, model: str) -> None:
    """Run every cut and compare."""
    runs = cuts(image, folder, model)
    results: dict[str, Any] = {}
    for name, run in runs.items():
        summary = api.run_config(run)
        blocks, digest = probability_digest(run)
        label_blocks = len(prepare_run(run).plan.label_grid)
        results[name] = {
            "predict_blocks": blocks,
            "label_blocks": label_blocks,
            "probabilities": digest,
            "wall_seconds": summary["wall_seconds"],
        }
    urls = {name: run.outputs[0].url for name, run in runs.items()}
    report(
        {
            "runs": results,
            "2 against 1": compare_labels(urls["2"], urls["1"]),
            "many against 1": compare_labels(urls["many"], urls["1"]),
            "2 workers against 1": compare_labels(urls["many"], urls["many, 1 worker"]),
        }
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "mito-lucchi")
