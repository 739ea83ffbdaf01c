"""From a network and a piece of a volume to probabilities that do not depend on how the volume was cut.

    for every batch of tiles                      (a tile's slot in the batch is fixed by its index in the domain)
        for every z window of the core
            encode its slices, once; neighboring windows share them
            step +z from an empty memory, step -z from an empty memory; weighted mean of both logits, sigmoid
            add to the core, weighted by the tile's ramp

With memory: sdf there are no windows: the signed distances of the whole block come first, then every slice looks at its
neighbors (`rings`).

Three things make a voxel's result bit-equal whatever the block: every model call has the same shape, a tile always has
the same slot, and the weighted sums are integers (2^-24), so that their order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam4em_core import tiles
from sam4em_core.blocks import (
    ALL_FLIPS,
    NO_FLIP,
    BlockInput,
    ModelCall,
    add_tile,
    as_bytes,
    device_of,
    flipped,
    precision_of,
    probability_of,
    require_image,
    tile_images,
)
from sam4em_core.encoder import SliceFeatures
from sam4em_core.field import LatticeField
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import Sam4emNet
from sam4em_core.rings import chain_probabilities, field_bytes, field_of_block, ring_probabilities
from sam4em_core.tiles import Span

__all__ = ["BlockInput", "predict_block"]


@torch.inference_mode()
def predict_block(
    network: Sam4emNet,
    header: CheckpointHeader,
    block: BlockInput,
    *,
    batch: int | None = None,
    flips: bool = False,
) -> NDArray[np.uint8]:
    """Predict the probabilities of one core.

    Args:
        network: in eval mode, on any device.
        header: the network's grids and sizes.
        block: what to predict.
        batch: tiles per model call; default: the header's. It changes rounding.
        flips: average over the tiles as they are and mirrored along y, x and both: four times the work.

    Returns:
        uint8 of shape (channels, z, y, x): one channel per class, probability times 255, rounded. A model with a U-Net
        adds one per class, its signed distances (`rings.field_bytes`).

    Raises:
        CoreConfigError: the core is empty or leaves the domain.
        ImageShapeError: the image is no float32 volume, or does not cover the context of the core.
        NonFiniteError: the network gave a NaN or an infinity.
    """
    require_image(block, header)
    axes = tiles.tile_axes(block.domain_shape, header)
    size = tiles.tiles_per_call(axes, batch or header.batch_tiles)
    shape = tuple(stop - start for start, stop in zip(block.core_start, block.core_stop, strict=True))
    sums_czyx = np.zeros((header.model.num_classes, *shape), dtype=np.int32)
    tiles_y, tiles_x = (
        grid.touching(block.core_start[axis], block.core_stop[axis]) for axis, grid in zip((1, 2), axes, strict=True)
    )
    field = field_of_block(network, header, block) if header.model.needs_field else None
    seen = ALL_FLIPS if flips else (NO_FLIP,)
    share = np.float32(1 / len(seen))
    for slots in tiles.batches_of(tiles_y, tiles_x, axes[1].count, size):
        for flip in seen:
            call = ModelCall(axes, size, slots, flip)
            for z, probability_BKHW in _probabilities(network, header, block, call, field):
                for slot, tile in slots.items():
                    add_tile(sums_czyx, flipped(probability_BKHW[slot], flip) * share, z, tile, block, axes)
    result = as_bytes(sums_czyx)
    return result if field is None else np.concatenate([result, field_bytes(field, block)])


def _probabilities(
    network: Sam4emNet, header: CheckpointHeader, block: BlockInput, call: ModelCall, field: LatticeField | None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (z, probabilities (size, K, H, W)) for every core slice, the way that the network's memory asks for."""
    if field is not None:
        return ring_probabilities(network, block, call, field)
    if network.sdf_memory is not None:
        return chain_probabilities(network, header, block, call)
    return _window_probabilities(network, header, block, call)


def _window_probabilities(
    network: Sam4emNet, header: CheckpointHeader, block: BlockInput, call: ModelCall
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (z, probabilities) window by window, both directions."""
    cache: dict[int, SliceFeatures] = {}
    bounds_z = (block.bounds[0][0], block.bounds[1][0])
    # By then the memory holds only entries that were themselves made with a full memory.
    settled = 2 * header.model.memory_slots
    for window in tiles.windows_touching(block.core_start[0], block.core_stop[0], header):
        reads, own = tiles.window_spans(window, block.domain_shape[0], bounds_z, header)
        wanted = (max(own[0], block.core_start[0]), min(own[1], block.core_stop[0]))
        sources = dict(zip(range(*reads), tiles.reflected(reads, bounds_z).tolist(), strict=True))
        _encode_missing(network, block, call, set(sources.values()), cache)
        if network.memory is None:
            for z in range(*wanted):
                yield z, probability_of(_logits(network, cache[sources[z]], z), z)
            continue
        upward = dict(_run(network, cache, sources, range(reads[0], wanted[1]), wanted))
        for z, downward_BKHW in _run(network, cache, sources, range(reads[1] - 1, wanted[0] - 1, -1), wanted):
            yield z, probability_of(_both_ways(upward.pop(z), downward_BKHW, z, reads, settled), z)


def _both_ways(upward_BKHW: Tensor, downward_BKHW: Tensor, z: int, reads: Span, settled: int) -> Tensor:
    """Average the logits of both directions, each weighted by the slices that its chain has seen, up to `settled`."""
    seen_upward, seen_downward = min(z - reads[0] + 1, settled), min(reads[1] - z, settled)
    return (upward_BKHW * seen_upward + downward_BKHW * seen_downward) / (seen_upward + seen_downward)


def _encode_missing(
    network: Sam4emNet,
    block: BlockInput,
    call: ModelCall,
    needed: set[int],
    cache: dict[int, SliceFeatures],
) -> None:
    """Encode the slices that are needed and not there, and forget those that are there and not needed."""
    for z in cache.keys() - needed:
        del cache[z]
    for z in sorted(needed - cache.keys()):
        image = torch.from_numpy(tile_images(block, call, z)).to(device_of(network))
        with precision_of(network):
            cache[z] = network.encode(image)


def _run(
    network: Sam4emNet, cache: dict[int, SliceFeatures], sources: dict[int, int], order: range, wanted: Span
) -> Iterator[tuple[int, Tensor]]:
    """Step through slices in one direction from an empty memory; yield the logits of the wanted ones."""
    first = cache[sources[order[0]]].image_B1HW
    state = network.initial_state(len(first), first.shape[2], first.shape[3], first.device)
    for z in order:
        with precision_of(network):
            out = network.step(cache[sources[z]], state)
        state = out.state
        if wanted[0] <= z < wanted[1]:
            yield z, out.refined_logits_BKHW.float()


def _logits(network: Sam4emNet, features: SliceFeatures, z: int) -> Tensor:
    return next(_run(network, {z: features}, {z: z}, range(z, z + 1), (z, z + 1)))[1]
