"""Predicting a block with memory: sdf: signed distances of the whole block first, then slices that look at neighbors.

    t-K ......... t ......... t+K        encoded, remembered: once per slice and call of tiles
                  ^ segmented as soon as t+K is remembered; then t-K is forgotten

Every slice depends on 2K+1 images and 2K slices of distances, so that nothing depends on where a block begins. What
lies outside the bounds is no neighbor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam4em_core import tiles
from sam4em_core.blocks import (
    BlockInput,
    ModelCall,
    cut_tiles,
    device_of,
    precision_of,
    probability_of,
    read_by,
    tile_images,
)
from sam4em_core.encoder import LevelFeatures
from sam4em_core.errors import CoreConfigError
from sam4em_core.field import LatticeField, predict_field
from sam4em_core.header import CheckpointHeader
from sam4em_core.lattice import lattice_image
from sam4em_core.model import Sam4emNet
from sam4em_core.neighborhood import LogitChain, masks_of, memory_of, neighbors_of


def field_of_block(network: Sam4emNet, header: CheckpointHeader, block: BlockInput) -> LatticeField:
    """Predict the signed distances that a block needs.

    Raises:
        CoreConfigError: the network has no U-Net.
        ImageShapeError: the block has no image for the U-Net, and its own does not cover what the U-Net reads.
        NonFiniteError: the U-Net gave a value that is not a number.
    """
    if network.unet is None:
        raise CoreConfigError(f"predicting distances: model {header.name} has no U-Net")
    start, stop = tiles.context_of(block.core_start, block.core_stop, block.bounds, block.domain_shape, header)
    grid = tiles.field_grid(block.bounds, header)
    image = block.unet_image or lattice_image(grid, block.image_zyx, block.image_start, start, stop)
    return predict_field(network.unet, grid, image, start, stop)


def field_bytes(field: LatticeField, block: BlockInput) -> NDArray[np.uint8]:
    """Give a core's signed distances as bytes: -tau is 0, +tau is 255; from 128 on a voxel lies inside."""
    (first, *low), (last, *high) = block.core_start, block.core_stop
    shape = [stop - start for start, stop in zip(block.core_start, block.core_stop, strict=True)]
    result = np.empty((len(field.values_czyx), *shape), dtype=np.uint8)
    for index, z in enumerate(range(first, last)):
        inside = field.inside((z, low[0], low[1]), (z + 1, high[0], high[1]))[:, 0]
        result[:, index] = np.rint((inside + np.float32(1)) * np.float32(127.5)).astype(np.uint8)
    return result


def ring_probabilities(
    network: Sam4emNet, block: BlockInput, call: ModelCall, field: LatticeField
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (z, probabilities (size, K, H, W)) for every slice of the core."""
    memory = memory_of(network)
    reach, offsets = memory.config.reach_slices, memory.config.offsets()
    core, bounds = (block.core_start[0], block.core_stop[0]), (block.bounds[0][0], block.bounds[1][0])
    looked_at = {z + offset for z in range(*core) for offset in offsets if bounds[0] <= z + offset < bounds[1]}
    waiting = iter(sorted(looked_at | set(range(*core))))
    levels: dict[int, LevelFeatures] = {}
    entries: dict[int, Tensor] = {}
    newest = bounds[0] - 1
    for z in range(*core):
        while newest < min(z + reach, bounds[1] - 1) and (following := next(waiting, None)) is not None:
            newest = following
            levels[newest] = _encoded(network, block, call, newest)
            if newest in looked_at:
                entries[newest] = _remembered(network, block, call, levels[newest], field, newest)
            if not core[0] <= newest < core[1]:
                del levels[newest]
        with precision_of(network):
            _, logits = masks_of(network, levels.pop(z), neighbors_of(network, z, entries))
        yield z, probability_of(logits.float(), z)
        entries.pop(z - reach, None)


def chain_probabilities(
    network: Sam4emNet, header: CheckpointHeader, block: BlockInput, call: ModelCall
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (z, probabilities) with SAM2's own memory (`source: logits`): windows with a warm-up, +z only."""
    bounds_z = (block.bounds[0][0], block.bounds[1][0])
    for window in tiles.windows_touching(block.core_start[0], block.core_stop[0], header):
        reads, own = tiles.window_spans(window, block.domain_shape[0], bounds_z, header)
        wanted = range(max(own[0], block.core_start[0]), min(own[1], block.core_stop[0]))
        sources = tiles.reflected(reads, bounds_z).tolist()
        chain = LogitChain(network)
        for z in range(reads[0], wanted.stop):
            levels = _encoded(network, block, call, sources[z - reads[0]])
            with precision_of(network):
                _, logits = masks_of(network, levels, chain.neighbors())
                chain.append(levels, logits)
            if z in wanted:
                yield z, probability_of(logits.float(), z)


def _encoded(network: Sam4emNet, block: BlockInput, call: ModelCall, z: int) -> LevelFeatures:
    image = torch.from_numpy(tile_images(block, call, z)).to(device_of(network))
    with precision_of(network):
        return network.encoder.levels(image)


def _remembered(
    network: Sam4emNet, block: BlockInput, call: ModelCall, levels: LevelFeatures, field: LatticeField, z: int
) -> Tensor:
    (low_y, low_x), (high_y, high_x) = read_by(call, block.bounds)
    start = (z, low_y, low_x)
    cut = cut_tiles(field.inside(start, (z + 1, high_y, high_x))[:, 0], start, block.bounds, call)
    with precision_of(network):
        return memory_of(network).entry(levels.fpn16, torch.from_numpy(cut).to(device_of(network)))
