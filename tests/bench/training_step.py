"""Processor seconds of one training step in turns: fused attention, plain products, and plain products in bfloat16.

    python tests/bench/training_step.py TRAINING.yaml [STAGE] [STEPS]

Takes the config's windows, network and threads; the first step of each kind is not counted.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from measure import report

import sam4em_core.training.forward as forward_module
from pipeline.config.read import parse_config, read_yaml
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, load_volume
from sam4em_core.training import TrainingConfig
from sam4em_core.training.loop import Progress, StageRunner
from sam4em_core.training.run import prepare_volumes, with_fields
from sam4em_core.training.sampler import WindowSampler
from sam4em_core.training.speed import computes_bfloat16, forward_precision, training_attention
from sam4em_core.training.starting import start_network

if TYPE_CHECKING:
    from contextlib import AbstractContextManager


class Attention(Protocol):
    """Chooses a kernel, as `training_attention` does."""

    def __call__(self, device: torch.device, crop_voxels: int, *, recomputes: bool) -> AbstractContextManager[None]:
        """See `training_attention`."""


def main(config: Path, stage: int, steps: int) -> None:
    """Alternate the two kinds and report medians."""
    document = parse_config(read_yaml(config), TrainingFile, str(config))
    training = parse_config(document.training, TrainingConfig, str(config))
    volumes = [load_volume(section, training.classes, StorageOptions()) for section in document.volumes]
    torch.set_num_threads(training.threads)
    network, device = start_network(training), torch.device("cpu")
    taught, working = prepare_volumes(training, volumes)
    working = with_fields(training, network, working, taught)
    sampler = WindowSampler(working, training.sampling)
    runner = StageRunner(training, network, sampler, Progress(stage=stage), device=device)

    def seconds(attention: Attention, dtype: Literal["float32", "bfloat16"]) -> float:
        forward_module.training_attention = attention
        forward_module.forward_precision = lambda _, device: forward_precision(dtype, device)
        start = time.process_time()
        runner.step()
        return time.process_time() - start

    kinds: dict[str, tuple[Attention, Literal["float32", "bfloat16"]]] = {
        "fused": (_fused, "float32"),
        "plain": (training_attention, "float32"),
        "plain_bfloat16": (training_attention, "bfloat16"),
    }
    taken = [{name: seconds(*kind) for name, kind in kinds.items()} for _ in range(steps + 1)][1:]
    report(
        {
            "stage": training.stages[stage].name,
            "threads": training.threads,
            "steps": steps,
            "computes_bfloat16": computes_bfloat16(device),
            "cpu_s": {name: statistics.median(row[name] for row in taken) for name in kinds},
            "plain_over_fused": _spread([row["plain"] / row["fused"] for row in taken]),
            "bfloat16_over_float32": _spread([row["plain_bfloat16"] / row["plain"] for row in taken]),
        }
    )


def _fused(device: torch.device, crop_voxels: int, *, recomputes: bool) -> AbstractContextManager[None]:
    del device, crop_voxels, recomputes
    return nullcontext()


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        raise SystemExit(__doc__)
    main(Path(arguments[0]), *(int(text) for text in [*arguments[1:], *["0", "10"][len(arguments) - 1 :]]))
