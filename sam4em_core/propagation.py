"""Carrying the masks of labelled slices through a volume, in both directions, and where the two disagree.

    labelled            a                       b
    upward     . . . . [a]> > > > > > > > > > >[b]> > > >        begins anew at every labelled slice
    downward   < < < < [a]< < < < < < < < < < <[b] . . . .
    fused               the nearer labelled slice counts more; outside a .. b there is one direction alone

The network is a SAM2 with its own memory (`sdf_memory.source: logits`): the given mask is its conditioning frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sam4em_core import tiles
from sam4em_core.blocks import (
    BlockInput,
    ModelCall,
    add_tile,
    as_bytes,
    cut_tiles,
    device_of,
    precision_of,
    probability_of,
    tile_images,
)
from sam4em_core.errors import CoreConfigError, ImageShapeError
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import Sam4emNet
from sam4em_core.neighborhood import LogitChain, masks_of, require_chain

Probabilities = NDArray[np.uint8]
"""Probability times 255, shape (classes, z, y, x)."""
Masks = Mapping[int, NDArray[np.uint8]]
"""Slice -> its mask per class, 0 or 1, shape (classes, y, x)."""

# From this byte on a voxel is more likely inside than outside.
_INSIDE = 128


@dataclass(frozen=True)
class Propagation:
    """The labelled slices of a volume, carried through it."""

    upward_czyx: Probabilities
    """Carried to larger z; 0 before the first labelled slice."""
    downward_czyx: Probabilities
    """Carried to smaller z; 0 behind the last labelled slice."""
    given: tuple[int, ...]
    """The labelled slices, ascending; both directions hold their masks as they were given."""

    def distances(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give, per slice, how far the labelled slice lies that each direction came from; -1 where none did."""
        places = np.arange(self.upward_czyx.shape[1])
        given = np.array(self.given)
        below = np.searchsorted(given, places, side="right") - 1
        above = np.searchsorted(given, places, side="left")
        up = np.where(below >= 0, places - given[np.maximum(below, 0)], -1)
        down = np.where(above < len(given), given[np.minimum(above, len(given) - 1)] - places, -1)
        return up, down

    def fused(self) -> Probabilities:
        """Mean of both directions, the nearer labelled slice counting more."""
        up, down = self.distances()
        share = np.where(up < 0, 0.0, np.where(down < 0, 1.0, down / np.maximum(up + down, 1)))
        # On a labelled slice both are as given.
        share_z = share.astype(np.float32)[:, None, None]
        result: Probabilities = np.rint(self.downward_czyx * (1 - share_z) + self.upward_czyx * share_z).astype(
            np.uint8
        )
        return result

    def disagreement(self) -> NDArray[np.bool_]:
        """Mark voxels that one direction holds for inside and the other for outside; none where there is one alone."""
        up, down = self.distances()
        differs = (self.upward_czyx >= _INSIDE) != (self.downward_czyx >= _INSIDE)
        result: NDArray[np.bool_] = differs & ((up >= 0) & (down >= 0))[:, None, None]
        return result


@torch.inference_mode()
def propagate_masks(
    network: Sam4emNet, header: CheckpointHeader, image_zyx: NDArray[np.float32], given: Masks
) -> Propagation:
    """Carry given masks through a volume, in both directions.

    Args:
        network: with `sdf_memory.source: logits`, in eval mode, on any device.
        header: its tiles.
        image_zyx: grey values in [0, 1] on the working lattice.
        given: the labelled slices.

    Raises:
        CoreConfigError: the network remembers something else, or no slice is given.
        ImageShapeError: a given mask is not as large as the image.
        NonFiniteError: the network gave a value that is not a number.
    """
    require_chain(network)
    depth, height, width = image_zyx.shape
    _require_given(given, image_zyx.shape, header.model.num_classes)
    domain = (depth, height, width)
    block = BlockInput(image_zyx, (0, 0, 0), ((0, 0, 0), domain), domain, (0, 0, 0), domain)
    labelled = sorted(given)
    upward = _carried(network, header, block, given, range(labelled[0], depth))
    downward = _carried(network, header, block, given, range(labelled[-1], -1, -1))
    return Propagation(upward, downward, tuple(labelled))


def _carried(
    network: Sam4emNet, header: CheckpointHeader, block: BlockInput, given: Masks, order: range
) -> Probabilities:
    """Carry masks in one direction; `order` begins at a labelled slice."""
    axes = tiles.tile_axes(block.domain_shape, header)
    size = tiles.tiles_per_call(axes, header.batch_tiles)
    sums_czyx = np.zeros((header.model.num_classes, *block.domain_shape), dtype=np.int32)
    every = range(axes[0].count), range(axes[1].count)
    for slots in tiles.batches_of(*every, axes[1].count, size):
        call = ModelCall(axes, size, slots)
        for z, logits in _chain(network, block, call, given, order):
            probability_BKHW = probability_of(logits.float(), z)
            for slot, tile in slots.items():
                add_tile(sums_czyx, probability_BKHW[slot], z, tile, block, axes)
    result = as_bytes(sums_czyx)
    for z, mask in given.items():
        result[:, z] = (mask == 1) * np.uint8(255)
    return result


def _chain(
    network: Sam4emNet, block: BlockInput, call: ModelCall, given: Masks, order: range
) -> Iterator[tuple[int, Tensor]]:
    """Yield (z, logits) of the slices that no mask is given for."""
    chain = LogitChain(network)
    for z in order:
        image = torch.from_numpy(tile_images(block, call, z)).to(device_of(network))
        with precision_of(network):
            levels = network.encoder.levels(image)
            if z in given:
                mask = cut_tiles(given[z].astype(np.float32), block.image_start, block.bounds, call)
                chain.begin(levels, torch.from_numpy(mask).to(device_of(network)))
                continue
            _, logits = masks_of(network, levels, chain.neighbors())
            chain.append(levels, logits)
        yield z, logits


def _require_given(given: Masks, shape: tuple[int, ...], num_classes: int) -> None:
    if not given:
        raise CoreConfigError("carrying masks through a volume: no slice is labelled; give at least one")
    for z, mask in given.items():
        if not 0 <= z < shape[0] or mask.shape != (num_classes, *shape[1:]):
            raise ImageShapeError(
                f"carrying masks through a volume of shape {shape}: the mask of slice {z} has shape {mask.shape}, "
                f"expected {(num_classes, *shape[1:])}"
            )


def dice_by_distance(
    predicted_czyx: NDArray[np.bool_], truth_czyx: NDArray[np.uint8], distances: NDArray[np.int64]
) -> dict[int, float]:
    """Give Dice over all slices of one distance from the labelled slice, by distance: the mean of the classes' Dice.

    A class that is neither there nor found at a distance does not count there; where none is, Dice is 1.

    Args:
        predicted_czyx: what was carried.
        truth_czyx: 0, 1, or anything else where it is unknown.
        distances: of every slice, in slices; those of 0 and below are left out.
    """
    result = {}
    for distance in np.unique(distances[distances > 0]).tolist():
        chosen = distances == distance
        truth = truth_czyx[:, chosen]
        predicted, inside = predicted_czyx[:, chosen] & (truth <= 1), truth == 1
        axes = (1, 2, 3)
        total = np.count_nonzero(predicted, axis=axes) + np.count_nonzero(inside, axis=axes)
        shared = np.count_nonzero(predicted & inside, axis=axes)
        dice = 2 * shared[total > 0] / total[total > 0]
        result[distance] = float(dice.mean()) if dice.size else 1.0
    return result
