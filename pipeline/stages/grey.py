"""What predict and label share: from a block to the probabilities of its voxels."""

from __future__ import annotations

import logging
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DeviceOutOfMemory
from pipeline.geometry import Box, Spacing
from pipeline.segmenter import BlockImage
from pipeline.stages.block_image import read_block_image
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import Stopwatch

log = logging.getLogger(__name__)


class Prediction(NamedTuple):
    """What the model says of a block."""

    probability_czyx: NDArray[np.uint8]
    """See `Segmenter.predict`."""
    remark: str | None
    """How it was computed, where not as planned: a repeat may differ in its last bits."""


def is_masked_out(box: Box, voxel_size_nm: Spacing, plan: RunPlan, context: TaskContext) -> bool:
    """Whether a mask is given and has no voxel in a box.

    Args:
        box: on a lattice whose origin is the region of interest's first voxel.
        voxel_size_nm: of that lattice.
        plan: the run's plan.
        context: where the mask is.
    """
    if context.mask is None:
        return False
    origin = [a * b for a, b in zip(plan.source_origin_zyx, plan.source_voxel_size_nm, strict=True)]
    start = [o + n * size for o, n, size in zip(origin, box.start, voxel_size_nm, strict=True)]
    stop = [o + n * size for o, n, size in zip(origin, box.stop, voxel_size_nm, strict=True)]
    return not context.mask.covers((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def predict_box(core: Box, plan: RunPlan, context: TaskContext, watch: Stopwatch) -> Prediction | None:
    """Read a block's image and ask the model for the probabilities of its core.

    Args:
        core: the voxels wanted, on the working lattice.
        plan: the run's plan.
        context: image and model.
        watch: takes the times of the phases.

    Returns:
        None where every voxel that was read has the same grey value.

    Raises:
        DeviceOutOfMemory: the device's memory is full even with one tile per call.
        DeviceLost: the device went away.
        WorldError: the image cannot be read.
    """
    image = read_block_image(core, plan, context, watch)
    if image is None:
        return None
    with context.device_lock, watch.phase("model"):
        return _predict_in_memory(image, core, plan, context)


def _predict_in_memory(image: BlockImage, core: Box, plan: RunPlan, context: TaskContext) -> Prediction:
    """Ask the model with as many tiles per call as the device's memory holds.

    Raises:
        DeviceOutOfMemory: it does not hold one.
    """
    planned, *smaller = context.demand.batches(plan.working_domain.shape)
    predict = partial(context.segmenter.predict, image, core, plan.working_bounds, plan.working_domain)
    try:
        return Prediction(predict(batch=planned), None)
    except DeviceOutOfMemory as error:
        if not smaller:
            raise
        full = str(error)
    # Outside of the handler: an error that is being handled keeps what the model had on the device alive.
    for batch in smaller:
        log.warning("%s: trying %d tiles per call in place of %d", full, batch, planned)
        try:
            probability_czyx = predict(batch=batch)
        except DeviceOutOfMemory as error:
            full = str(error)
            continue
        return Prediction(probability_czyx, f"{batch} tiles per model call in place of {planned}")
    raise DeviceOutOfMemory(f"{full}; so with one tile per call")
