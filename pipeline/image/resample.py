"""Resampling between lattices of different voxel size, anchored at the volume.

The value at a target voxel is a fixed sum over source voxels whose weights depend on the voxel's global index
alone, added in a fixed order. So any two boxes give the same bits where they overlap, which a library call
on a cut-out does not promise.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.geometry import Box, Spacing
from pipeline.geometry.lattice import SNAP_VOXELS

SLAB_SLICES: Final = 8
"""Target slices that are made at a time: the source is held as float32 for these alone."""


def resample(
    image_zyx: NDArray[Any],
    image_box: Box,
    target_box: Box,
    ratio: Spacing,
    bounds: Box,
) -> NDArray[np.float32]:
    """Bring a piece of a volume onto another lattice.

    Where the target is coarser each voxel is the mean of what it covers; where it is finer it is
    interpolated linearly between voxel centers. Beyond `bounds` the border voxel repeats.

    Args:
        image_zyx: the source voxels of `image_box`, shape (z, y, x).
        image_box: where they lie on the source lattice; at least `source_box(target_box, ratio, bounds)`.
        target_box: the voxels wanted, on the target lattice.
        ratio: target spacing / source spacing, per axis.
        bounds: the source voxels that exist.

    Returns:
        float32 of `target_box`'s shape.

    Raises:
        OurError: `image_zyx` has another shape than `image_box`, or lacks a voxel that is needed.
    """
    if image_zyx.shape != image_box.shape:
        raise OurError(f"resampling {image_box}: the array has shape {image_zyx.shape}")
    result = np.empty(target_box.shape, np.float32)
    for slab in target_box.slabs(SLAB_SLICES):
        inside = slab.relative_to(target_box.start).slices
        result[inside] = _slab(image_zyx, image_box, slab, ratio, bounds)
    return result


def _slab(image_zyx: NDArray[Any], image_box: Box, target_box: Box, ratio: Spacing, bounds: Box) -> NDArray[np.float32]:
    """See `resample`; converts no more slices than these need."""
    taps, weights = _taps_inside(0, image_box, target_box, ratio, bounds)
    low = int(taps.min())
    result = image_zyx[low : int(taps.max()) + 1].astype(np.float32)
    result = _weighted_sum(result, taps - low, weights, 0)
    for axis in (1, 2):
        if ratio[axis] == 1 and (image_box.start[axis], image_box.stop[axis]) == (
            target_box.start[axis],
            target_box.stop[axis],
        ):
            continue
        result = _weighted_sum(result, *_taps_inside(axis, image_box, target_box, ratio, bounds), axis)
    return result


def _taps_inside(
    axis: int, image_box: Box, target_box: Box, ratio: Spacing, bounds: Box
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give indices into the image and weights, both of shape (taps, targets).

    Raises:
        OurError: the image lacks a voxel that is needed.
    """
    taps, weights = _taps(np.arange(target_box.start[axis], target_box.stop[axis], dtype=np.int64), ratio[axis])
    taps = np.clip(taps, bounds.start[axis], bounds.stop[axis] - 1) - image_box.start[axis]
    if taps.size and (taps.min() < 0 or taps.max() >= image_box.shape[axis]):
        raise OurError(f"resampling to {target_box}: axis {axis} of {image_box} lacks voxels")
    return taps, weights


def _weighted_sum(
    values: NDArray[np.float32], taps: NDArray[np.int64], weights: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """Add `weights[k] * values[taps[k]]` along one axis, k in ascending order."""
    weight_shape = [1, 1, 1]
    weight_shape[axis] = taps.shape[1]
    total = np.take(values, taps[0], axis=axis)
    total *= weights[0].reshape(weight_shape)
    for tap, weight in zip(taps[1:], weights[1:], strict=True):
        total += np.take(values, tap, axis=axis) * weight.reshape(weight_shape)
    return total


def _taps(targets: NDArray[np.int64], ratio: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give source indices and weights, both of shape (taps, targets)."""
    if ratio == 1:
        return targets[None], np.ones((1, len(targets)), np.float32)
    if ratio < 1:
        center = (targets + 0.5) * ratio - 0.5
        lower = np.floor(center + SNAP_VOXELS).astype(np.int64)
        upper_weight = np.clip(center - lower, 0.0, 1.0)
        return np.stack([lower, lower + 1]), np.stack([1 - upper_weight, upper_weight]).astype(np.float32)
    start = targets * ratio
    stop = start + ratio
    first = np.floor(start + SNAP_VOXELS).astype(np.int64)
    # ceil(ratio) + 1 source voxels is the most that an interval of length ratio can touch.
    taps = first[None] + np.arange(int(np.ceil(ratio - SNAP_VOXELS)) + 1)[:, None]
    covered = np.minimum(taps + 1, stop[None]) - np.maximum(taps, start[None])
    weights = np.clip(covered, 0.0, None)
    weights[weights < 2 * SNAP_VOXELS] = 0.0
    weights /= weights.sum(axis=0, keepdims=True)
    # A tap without weight may lie beyond what was read: point it at the first one instead.
    return np.where(weights > 0, taps, first[None]), weights.astype(np.float32)
