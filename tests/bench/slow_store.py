"""Are workers kept busy by a store that takes its time? And are two workers twice as fast as one?

    python tests/bench/slow_store.py IMAGE FOLDER [MODEL] [DELAY_MS]

Every request to a store (a chunk read or written, a small object put or fetched) takes DELAY_MS longer, 50 by default,
as if the store were in another town. One run with one worker, one with two, one CPU thread of the model each. Start-up
is not in the figures; the busy share counts until the last block was through the model.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from measure import report
from zarr.storage import LocalStore

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.run import launch
from pipeline.run.completion import Executor, StageSet
from pipeline.run.prepare import PreparedRun, prepare_run
from pipeline.run.run_stages import RunRoom, RunStages
from pipeline.run.summary import RunSummary
from pipeline.storage import ObjectStore
from pipeline.telemetry import SilentReporter


@dataclass(frozen=True)
class SlowStages(RunStages):
    """The real stages, on workers whose stores are slow."""

    delay_s: float = 0.05

    def open(self) -> RunRoom:
        """Slow the stores of this worker process down, then open the stages."""
        slow_down(self.delay_s)
        return super().open()


def slow_down(delay_s: float) -> None:
    """Make every request of this process wait; it is a worker that ends with the run."""
    for name in ("put", "get", "put_if_absent", "exists"):
        setattr(ObjectStore, name, delayed(getattr(ObjectStore, name), delay_s))
    for name in ("get", "set", "delete"):
        setattr(LocalStore, name, delayed_async(getattr(LocalStore, name), delay_s))


def delayed(function: Callable[..., Any], delay_s: float) -> Callable[..., Any]:
    """Give a function that waits first."""

    @wraps(function)
    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(delay_s)
        return function(*arguments, **named)

    return slow


def delayed_async(function: Callable[..., Any], delay_s: float) -> Callable[..., Any]:
    """Give a coroutine function that waits first; others may ask meanwhile, as of a store on the network."""

    @wraps(function)
    async def slow(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(delay_s)
        return await function(*arguments, **named)

    return slow


def configure(image: str, output: Path, model: str, workers: int) -> RunConfig:
    """Write the config of a run whose predict blocks are as small as the model's tiles: some for every worker."""
    values: dict[str, Any] = {
        "image": {"url": image},
        "outputs": [{"url": str(output), "num_mips": 1}],
        "segmenter": {"kind": "sam4em", "model": model, "device": "cpu"},
        "cluster": {"workers": workers},
    }
    prepared = prepare_run(parse_config(values, RunConfig, "benchmark"))
    unit = prepared.demand.unit_zyx(prepared.plan.working_domain.shape)
    return parse_config({**values, "plan": {"predict_block_zyx": list(unit)}}, RunConfig, "benchmark")


def run(image: str, output: Path, model: str, workers: int, delay_s: float) -> RunSummary:
    """Segment the image with so many workers."""
    config = configure(image, output, model, workers)

    @contextmanager
    def open_executor(prepared: PreparedRun, stages: StageSet) -> Iterator[Executor]:
        del stages
        slow = SlowStages(prepared.plan, prepared.demand.identity, delay_s=delay_s)
        with launch.dask_executor(prepared, slow) as executor:
            yield executor

    return launch.run_config(config, reporter=SilentReporter(), restart=True, open_executor=open_executor)


def main(image: str, folder: Path, model: str, delay_s: float) -> None:
    """Measure one worker and two."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Any] = {}
    for workers in (1, 2):
        summary = run(image, folder / f"{workers}.zarr", model, workers, delay_s)
        shares = list(summary.busy_fraction_by_worker.values())
        model_wall = summary.model_seconds / sum(shares)
        rows[f"{workers} workers"] = {
            "busy_share": shares,
            "wall_s": summary.wall_seconds,
            "wall_s_until_the_last_block_was_through_the_model": model_wall,
            "model_s": summary.model_seconds,
            "core_voxels": summary.core_voxels,
            "model_voxels": summary.model_voxels,
        }
    one, two = rows["1 workers"], rows["2 workers"]
    key = "wall_s_until_the_last_block_was_through_the_model"
    report(
        {
            **rows,
            "delay_s": delay_s,
            "two_workers_over_one": one[key] / two[key],
            "of_the_whole_run": one["wall_s"] / two["wall_s"],
        }
    )


if __name__ == "__main__":
    rest = sys.argv[3:]
    main(
        sys.argv[1],
        Path(sys.argv[2]).absolute(),
        rest[0] if rest else "mito-lucchi",
        float(rest[1]) / 1000 if len(rest) > 1 else 0.05,
    )
