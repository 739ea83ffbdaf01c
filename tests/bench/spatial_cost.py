"""Time per voxel of memory: sdf, U-Net included, against memory: none, at the small model's default size.

    OMP_NUM_THREADS=1 python tests/bench/spatial_cost.py [SLICES SIDE]

Weights are random: the time does not depend on them. Whole blocks through `predict_block`, so that halos, overlaps and
interpolation count. Rounds of both alternate; the best CPU time of each counts, because wall time is the machine's.
The activations of one patch of the U-Net are what the resident memory grows by, per voxel and channel of its first
level.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from measure import report
from numpy.typing import NDArray

from pipeline.run.work import peak_memory_bytes
from sam4em_core import tiles
from sam4em_core.config import ModelConfig, UnetConfig
from sam4em_core.field import predict_field
from sam4em_core.header import CheckpointHeader
from sam4em_core.lattice import lattice_image
from sam4em_core.model import Sam4emNet, build_model
from sam4em_core.propagate import BlockInput, predict_block
from sam4em_core.unet3d import build_unet

ROUNDS = 3


def main(slices: int = 48, side: int = 256) -> None:
    """Time both networks on one block."""
    torch.set_num_threads(1)
    activations = activations_per_voxel_channel()
    image = np.random.default_rng(0).random((slices, side, side), dtype=np.float32)
    shape = (slices, side, side)
    block = BlockInput(image, (0, 0, 0), ((0, 0, 0), shape), shape, (0, 0, 0), shape)
    configs = {"none": ModelConfig(memory="none"), "sdf": ModelConfig(memory="sdf", unet=UnetConfig())}
    models = {name: prepared(config) for name, config in configs.items()}
    best = dict.fromkeys(models, float("inf"))
    for _ in range(ROUNDS):
        for name, (network, header) in models.items():
            started = time.process_time()
            predict_block(network, header, block)
            best[name] = min(best[name], time.process_time() - started)
    rates = {name: round(seconds / image.size * 1e6, 3) for name, seconds in best.items()}
    report(
        {
            "block": list(shape),
            "cpu_us_per_voxel": rates,
            "ratio": round(best["sdf"] / best["none"], 3),
            "cpu_us_per_unet_voxel": round(us_per_unet_voxel(*models["sdf"], image), 3),
            "unet_activations_per_voxel_channel": round(activations, 2),
        }
    )


def us_per_unet_voxel(network: Sam4emNet, header: CheckpointHeader, image: NDArray[np.float32]) -> float:
    """CPU time of the U-Net per voxel of its patches, blending included; the best round counts."""
    start, stop = (0, 0, 0), image.shape
    grid = tiles.field_grid((start, stop), header)
    piece = lattice_image(grid, image, start, start, stop)
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        predict_field(network.unet, grid, piece, start, stop)
        best = min(best, time.process_time() - started)
    return best / grid.num_touching(start, stop) / grid.patch_voxels * 1e6


def activations_per_voxel_channel() -> float:
    """Peak resident growth of one patch, in float32 values per voxel and channel of the first level."""
    config = UnetConfig()
    network, patch = build_unet(config).eval(), torch.rand(1, 1, *config.patch_zyx)
    with torch.inference_mode():
        network(patch[..., :8, :8, :8])
        before = peak_memory_bytes()
        network(patch)
    grown = peak_memory_bytes() - before
    return grown / 4 / patch.numel() / config.widths[0]


def prepared(config: ModelConfig) -> tuple[Sam4emNet, CheckpointHeader]:
    """Build a network with random weights, and the header that goes with it."""
    torch.manual_seed(0)
    header = CheckpointHeader(
        model=config,
        classes=("object",),
        thresholds=(0.5,),
        working_voxel_size_zyx_nm=(10.0, 10.0, 10.0),
        accepted_voxel_size_nm=(4.0, 16.0),
    )
    return build_model(config).eval(), header


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:]))
