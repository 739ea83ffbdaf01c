"""Seconds of one training step with fused attention and with plain products, taken in turns.

    python tests/bench/training_step.py TRAINING.yaml [STAGE] [STEPS]

Takes the config's windows, network and threads; the first step of each kind is not counted.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

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
from sam4em_core.training.speed import training_attention
from sam4em_core.training.starting import start_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def main(config: Path, stage: int, steps: int) -> None:
    """Alternate the two kinds and report medians."""
    document = parse_config(read_yaml(config), TrainingFile, str(config))
    training = parse_config(document.training, TrainingConfig, str(config))
    volumes = [load_volume(section, training.classes, StorageOptions()) for section in document.volumes]
    torch.set_num_threads(training.threads)
    network, device = start_network(training), torch.device("cpu")
    working = with_fields(training, network, prepare_volumes(training, volumes), volumes)
    sampler = WindowSampler(working, training.sampling)
    runner = StageRunner(training, network, sampler, Progress(stage=stage), device=device)

    def seconds(attention: Callable[[torch.device, int], AbstractContextManager[None]]) -> float:
        forward_module.training_attention = attention
        start = time.perf_counter()
        runner.step()
        return time.perf_counter() - start

    kinds = {"fused": lambda device, crop: nullcontext(), "plain": training_attention}
    taken = [{name: seconds(kind) for name, kind in kinds.items()} for _ in range(steps + 1)][1:]
    ratios = [pair["plain"] / pair["fused"] for pair in taken]
    report(
        {
            "stage": training.stages[stage].name,
            "threads": training.threads,
            "steps": steps,
            "fused_s": statistics.median(pair["fused"] for pair in taken),
            "plain_s": statistics.median(pair["plain"] for pair in taken),
            "plain_over_fused": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        }
    )


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if not arguments:
        raise SystemExit(__doc__)
    main(Path(arguments[0]), *(int(text) for text in [*arguments[1:], *["0", "10"][len(arguments) - 1 :]]))
