"""Segment properties of precomputed outputs: what Neuroglancer shows in its segment list."""

from __future__ import annotations

import importlib

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.arrays import SegmentArray
from pipeline.stages.context import TaskContext
from pipeline.stages.plan import RunPlan

PRECOMPUTED = "precomputed"


def write_properties(
    plan: RunPlan,
    context: TaskContext,
    class_index: int,
    ids: SegmentArray,
    voxels: NDArray[np.uint64],
    num_objects: int,
) -> int:
    """Write class and size of the largest objects beside every precomputed output of a class.

    Args:
        plan: the run's plan.
        context: how stores are reached; the outputs were created.
        class_index: the class.
        ids: ids of its objects, or of the largest ones, shape (n,).
        voxels: their sizes, shape (n,).
        num_objects: how many it has in all.

    Returns:
        How many objects were left out, over all outputs.

    Raises:
        WorldError: the store failed.
    """
    num_left_out = 0
    for output in plan.outputs:
        if output.class_index != class_index or output.format != PRECOMPUTED:
            continue
        # cloud-volume takes a second to import: only where it is needed.
        storage = importlib.import_module("pipeline.storage.segment_properties")
        chosen = largest(ids, voxels, output.num_segment_properties)
        names = [plan.classes[class_index].name] * len(chosen)
        document = storage.segment_properties_info(ids[chosen], names, voxels[chosen])
        storage.write_segment_properties(output.url, document, context.options)
        num_left_out += num_objects - len(chosen)
    return num_left_out


def largest(ids: SegmentArray, voxels: NDArray[np.uint64], count: int) -> NDArray[np.intp]:
    """Give the rows of the `count` largest objects, in the order of their ids; of equal ones the smaller id."""
    order = np.lexsort((ids, np.uint64(2**64 - 1) - voxels))
    return np.sort(order[:count])
