"""Parts one block's probabilities into components.

Nothing here knows the block's place in the volume: the same voxels with the same surroundings get the same
parts, so that what two neighbours computed in their common slab can be matched.
"""

from __future__ import annotations

from typing import Final, cast

import cc3d
import numpy as np

from pipeline.errors import OurError
from pipeline.labels.arrays import LabelArray, MaskArray, ProbabilityArray

OBJECT_CONNECTIVITY: Final = 6
"""Voxels of one object share a face."""
HOLE_CONNECTIVITY: Final = 26
"""Voxels of one hole share a corner: the dual of face-connected objects."""


def threshold_mask(probability_zyx: ProbabilityArray, threshold_u8: int, fill_holes_extent: int = 0) -> MaskArray:
    """Mark the voxels of a class.

    Args:
        probability_zyx: probabilities of one class, shape (z, y, x), 0..255.
        threshold_u8: lowest probability that lies inside, 1..255.
        fill_holes_extent: see `fill_small_holes`; 0 fills none.

    Returns:
        Shape (z, y, x), True inside.

    Raises:
        OurError: the threshold would count probability 0 as inside.
    """
    if not 1 <= threshold_u8 <= 255:
        raise OurError(f"thresholding: the threshold must lie in 1..255, found {threshold_u8}")
    mask_zyx = probability_zyx >= np.uint8(threshold_u8)
    return fill_small_holes(mask_zyx, fill_holes_extent) if fill_holes_extent > 0 else mask_zyx


def fill_small_holes(mask_zyx: MaskArray, max_extent: int) -> MaskArray:
    """Fill the holes that are smaller than `max_extent` along every axis.

    A hole is a corner-connected component of the background that does not touch the array's border. A block
    with a halo of at least `max_extent` voxels therefore fills, in its core and one voxel around it, exactly
    what the whole volume would fill.

    Args:
        mask_zyx: True inside, shape (z, y, x).
        max_extent: extent in voxels from which on a hole stays open; 0 fills none.

    Returns:
        The filled mask; the input itself where there is nothing to fill.
    """
    if max_extent <= 1 or not mask_zyx.any():
        return mask_zyx
    holes_zyx, num_holes = cc3d.connected_components(
        ~mask_zyx, connectivity=HOLE_CONNECTIVITY, out_dtype=np.uint32, return_N=True, binary_image=True
    )
    if num_holes == 0:
        return mask_zyx
    boxes = cc3d.statistics(holes_zyx, no_slice_conversion=True)["bounding_boxes"].astype(np.int64)
    first, last = boxes[:, 0::2], boxes[:, 1::2]
    inside = (first > 0).all(axis=1) & (last < np.array(mask_zyx.shape) - 1).all(axis=1)
    is_filled: MaskArray = np.asarray(inside & (last - first + 1 < max_extent).all(axis=1))
    is_filled[0] = False
    if not is_filled.any():
        return mask_zyx
    return mask_zyx | is_filled[holes_zyx]


def label_components(mask_zyx: MaskArray) -> LabelArray:
    """Number the face-connected components of a mask, densely from 1.

    Args:
        mask_zyx: True inside, shape (z, y, x).

    Returns:
        Labels, shape (z, y, x), in the order in which a scan first meets them.
    """
    return cast(
        LabelArray,
        cc3d.connected_components(mask_zyx, connectivity=OBJECT_CONNECTIVITY, out_dtype=np.uint32, binary_image=True),
    )


def segment_components(probability_zyx: ProbabilityArray, threshold_u8: int, fill_holes_extent: int = 0) -> LabelArray:
    """Part probabilities into face-connected components.

    Hysteresis takes the low threshold here; whether an object holds a seed, and whether it is large enough,
    can only be said of the whole object, after `resolve`.

    Args:
        probability_zyx: probabilities of one class, shape (z, y, x), 0..255.
        threshold_u8: lowest probability that lies inside, 1..255.
        fill_holes_extent: see `fill_small_holes`; 0 fills none.

    Returns:
        Labels dense from 1, shape (z, y, x).
    """
    return label_components(threshold_mask(probability_zyx, threshold_u8, fill_holes_extent))
