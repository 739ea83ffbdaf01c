"""What a segmenter sees of a block: read front to back, and brought onto the working lattice slab by slab.

    chunks of the source      | layer | layer | layer |     read once each, whole layers of chunks
    slabs of the working lattice  |  |  |  |  |  |  |       resampled, rescaled, handed on, forgotten

The source of a block is never held whole: at 5 nm it has eight times the voxels of a working lattice of 10 nm, and a
U-Net reads much around a block.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Vector, ceil_div, source_box
from pipeline.image import resample, rescale
from pipeline.image.grey import is_constant
from pipeline.segmenter import BlockImage
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Stopwatch
from pipeline.storage import Volume

# Source slices that are read at a time at least: thin chunks are read together.
_LAYER_SLICES: Final = 64


def layer_slices(chunk_zyx: Vector) -> int:
    """Give the source slices that are read at a time: whole chunks."""
    return chunk_zyx[0] * ceil_div(_LAYER_SLICES, chunk_zyx[0])


def read_block_image(core: Box, plan: RunPlan, context: TaskContext, watch: Stopwatch) -> BlockImage | None:
    """Read what the segmenter wants for a block.

    Args:
        core: the voxels whose probabilities are wanted, on the working lattice.
        plan: the run's plan.
        context: image and demand.
        watch: takes the times of reading and of computing.

    Returns:
        None where every voxel that was read has the same grey value.

    Raises:
        WorldError: the image cannot be read.
    """
    demand = context.demand
    bounds, domain = plan.working_bounds, plan.working_domain
    reads = demand.reads(core, bounds, domain)
    source = source_box(reads, plan.source_to_working, plan.source_bounds)
    layers = _Layers(context.image, source.shifted(plan.source_origin_zyx), plan.source_layer_slices)

    def working_zyx(slab: Box) -> NDArray[np.float32]:
        read = source_box(slab, plan.source_to_working, plan.source_bounds)
        with watch.phase("read"):
            image_zyx = layers.slices(read.start[0] - source.start[0], read.stop[0] - source.start[0])
        resampled_zyx = resample(image_zyx, read, slab, plan.source_to_working, plan.source_bounds)
        return rescale(resampled_zyx, plan.grey_range)

    if plan.takes_raw_grey:
        with watch.phase("read"):
            image = BlockImage(layers.slices(0, source.shape[0]), reads)
    else:
        with watch.phase("compute"):
            image = demand.image(working_zyx, core, bounds, domain)
    return None if layers.is_constant else image


class _Layers:
    """A box of a volume, asked for from front to back: reads whole layers of chunks, and every voxel once."""

    is_constant: bool
    """Whether all voxels that were read so far have one grey value: padding, resin, a missing tile."""

    def __init__(self, volume: Volume, box: Box, depth: int) -> None:
        self._volume = volume
        self._box = box
        self._depth = depth
        self._first = box.start[0]
        self._held: NDArray[Any] = np.empty((0, *box.shape[1:]), volume.info.dtype)
        self._grey: Any = None
        self.is_constant = True

    def slices(self, start: int, stop: int) -> NDArray[Any]:
        """Give slices [start, stop) of the box; those before `start` are forgotten."""
        low, high = self._box.start[0] + start, self._box.start[0] + stop
        self._held = self._held[low - self._first :]
        self._first = low
        end = low + len(self._held)
        if high > end:
            more = self._read(end, min(ceil_div(high, self._depth) * self._depth, self._box.stop[0]))
            self._held = np.concatenate([self._held, more]) if len(self._held) else more
        return self._held[: high - low]

    def _read(self, first: int, last: int) -> NDArray[Any]:
        layer = self._volume.read(Box((first, *self._box.start[1:]), (last, *self._box.stop[1:])))
        self._grey = layer.flat[0] if self._grey is None else self._grey
        self.is_constant = self.is_constant and bool(layer.flat[0] == self._grey) and is_constant(layer)
        return layer
