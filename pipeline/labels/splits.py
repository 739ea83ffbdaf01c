"""Parts components at their necks, so that objects that touch get labels of their own.

1. distance of every voxel of a component to the outside, or to the nearest surface as a model predicts it: that falls
   to zero between objects that touch along a whole face, where the mask has no neck
2. seeds: maxima of the distance that stand out, and those near to each other are one
3. flooding from the seeds
"""

from __future__ import annotations

from typing import cast

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

from pipeline.geometry import Spacing
from pipeline.labels.arrays import LabelArray, MaskArray, ProbabilityArray
from pipeline.labels.instances import HOLE_CONNECTIVITY, label_components, threshold_mask

# A dip shallower than this share of the seed spacing is roughness of the surface, not a neck. Measured on 64 touching
# balls 26 voxels wide with a rough surface, spacing 12.5 voxels: up to 0.1 finds 64, 0.15 finds 58, 0.2 finds 41.
_DEPTH_FRACTION = 0.05

VALLEY_FRACTION = 0.4
"""A predicted distance falls towards zero between two objects. A valley that keeps a larger share of the lower peak
than this is a waist, or the network's noise. AP75 at 0.4, 0.5, 0.6 and 0.7: of true distances with noise
(`tests/integration/labels`) 1.00, 0.93, 0.77, 0.56 and 0.96, 0.75, 0.65, 0.47; of a trained U-Net on the choose slices
of three tissues (`tests/bench/touching.py`) 0.39, 0.50, 0.53, 0.47 and 0.50, 0.69, 0.67, 0.55 and 0.69, 0.69, 0.70,
0.70. Noise asks for less; a network blurs valleys, which asks for more."""


def segment_watershed(
    probability_zyx: ProbabilityArray,
    threshold_u8: int,
    spacing_zyx_nm: Spacing,
    seed_spacing_nm: float,
    fill_holes_extent: int = 0,
    distance_zyx: NDArray[np.float32] | None = None,
    valley_fraction: float = VALLEY_FRACTION,
) -> LabelArray:
    """Part probabilities into components, and components at their necks.

    Every component is taken by itself, so memory beyond a few label arrays goes with the largest one. The same
    input gives the same labels.

    Args:
        probability_zyx: probabilities of one class, shape (z, y, x), 0..255.
        threshold_u8: lowest probability that lies inside, 1..255.
        spacing_zyx_nm: voxel size.
        seed_spacing_nm: seeds nearer than this are one.
        fill_holes_extent: see `fill_small_holes`; 0 fills none.
        distance_zyx: predicted distance to the nearest surface in nm, 0 outside; None: that to the mask's outside.
        valley_fraction: with a predicted distance: the largest share of the lower peak that a valley between two
            objects may keep.

    Returns:
        Labels dense from 1, shape (z, y, x).
    """
    components_zyx = label_components(threshold_mask(probability_zyx, threshold_u8, fill_holes_extent))
    boxes = cc3d.statistics(components_zyx, no_slice_conversion=True)["bounding_boxes"].astype(np.int64)
    labels_zyx = np.zeros_like(components_zyx)
    num_labels = 0
    for component in range(1, int(components_zyx.max(initial=0)) + 1):
        first, last = boxes[component, 0::2], boxes[component, 1::2]
        window = tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
        inside_zyx = components_zyx[window] == component
        if distance_zyx is not None:
            depth_zyx = distance_zyx[window]
            parts_zyx = split_by_distance(inside_zyx, depth_zyx, spacing_zyx_nm, seed_spacing_nm, valley_fraction)
        else:
            margins = _outside_margins(first, last, components_zyx.shape)
            parts_zyx = split_component(inside_zyx, spacing_zyx_nm, seed_spacing_nm, margins)
        labels_zyx[window][inside_zyx] = parts_zyx[inside_zyx] + np.uint32(num_labels)
        num_labels += int(parts_zyx.max())
    return labels_zyx


def _outside_margins(
    first: NDArray[np.int64], last: NDArray[np.int64], shape: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Say per axis whether a voxel of outside lies below and above a component's bounding box."""
    return [(int(first[axis] > 0), int(last[axis] < shape[axis] - 1)) for axis in range(3)]


def split_component(
    inside_zyx: MaskArray,
    spacing_zyx_nm: Spacing,
    seed_spacing_nm: float,
    margins: list[tuple[int, int]],
) -> LabelArray:
    """Part one component at its necks.

    Args:
        inside_zyx: the component in its bounding box, shape (z, y, x).
        spacing_zyx_nm: voxel size.
        seed_spacing_nm: seeds nearer than this are one.
        margins: per axis, how many voxels of outside lie below and above the box: 1, or 0 where the box ends at
            the border of what was read and the component may go on.

    Returns:
        Labels dense from 1, shape (z, y, x); 0 outside.
    """
    whole_zyx = inside_zyx.astype(np.uint32)
    extent_nm = [n * spacing for n, spacing in zip(inside_zyx.shape, spacing_zyx_nm, strict=True)]
    if max(extent_nm) <= seed_spacing_nm:
        return whole_zyx
    padded_zyx = np.ascontiguousarray(np.pad(inside_zyx, margins))
    if padded_zyx.all():
        return whole_zyx
    distance_zyx = edt.edt(padded_zyx, anisotropy=spacing_zyx_nm, black_border=False, parallel=1)
    seeds_zyx = find_seeds(distance_zyx, spacing_zyx_nm, seed_spacing_nm)
    if int(seeds_zyx.max()) <= 1:
        return whole_zyx
    parts_zyx = watershed(-distance_zyx, markers=seeds_zyx, mask=padded_zyx)
    trimmed = tuple(slice(low, n - high) for (low, high), n in zip(margins, padded_zyx.shape, strict=True))
    return cast(LabelArray, parts_zyx[trimmed].astype(np.uint32))


def split_by_distance(
    inside_zyx: MaskArray,
    distance_zyx: NDArray[np.float32],
    spacing_zyx_nm: Spacing,
    seed_spacing_nm: float,
    valley_fraction: float = VALLEY_FRACTION,
) -> LabelArray:
    """Part one component along the valleys of a predicted distance.

    Args:
        inside_zyx: the component in its bounding box, shape (z, y, x).
        distance_zyx: predicted distance to the nearest surface in nm, same shape; 0 where a voxel lies outside.
        spacing_zyx_nm: voxel size.
        seed_spacing_nm: seeds nearer than this are one.
        valley_fraction: the largest share of the lower peak that a valley between two objects may keep.

    Returns:
        Labels dense from 1, shape (z, y, x); 0 outside. A component without a voxel inside stays whole.
    """
    # Voxels that only the mask calls inside have depth 0: the flood reaches them last, from whichever part is nearest.
    depth_zyx = np.where(inside_zyx, distance_zyx, np.float32(0))
    seeds_zyx = find_seeds(depth_zyx, spacing_zyx_nm, seed_spacing_nm, valley_fraction)
    if int(seeds_zyx.max(initial=0)) <= 1:
        return inside_zyx.astype(np.uint32)
    parts_zyx = watershed(-depth_zyx, markers=seeds_zyx, mask=inside_zyx)
    return cast(LabelArray, parts_zyx.astype(np.uint32))


def inside_distance(sdf_zyx: ProbabilityArray, tau_nm: float) -> NDArray[np.float32]:
    """Give the distance to the surface in nm of stored signed distances, 0 outside.

    Args:
        sdf_zyx: 0 is -tau, 255 is tau, from 128 on inside; shape (z, y, x).
        tau_nm: where the distances are cut off.
    """
    return np.maximum(sdf_zyx.astype(np.float32) - np.float32(127.5), np.float32(0)) * np.float32(tau_nm / 127.5)


def find_seeds(
    distance_zyx: NDArray[np.float32], spacing_zyx_nm: Spacing, seed_spacing_nm: float, valley_fraction: float = 1.0
) -> NDArray[np.int32]:
    """Number the maxima of a distance map that are objects of their own.

    A maximum must stand above the saddle to any higher one by a twentieth of the seed spacing, by a voxel, and so far
    that the saddle has no more than a share of its height.
    Maxima that a path of steps shorter than the seed spacing joins inside the object are one: a tube has many.

    Args:
        distance_zyx: distance to the outside in nm, 0 outside, shape (z, y, x).
        spacing_zyx_nm: voxel size.
        seed_spacing_nm: seeds nearer than this are one.
        valley_fraction: that share; 1: any.

    Returns:
        Seeds dense from 1, shape (z, y, x), 0 elsewhere.

    Source: h-maxima, Soille, Morphological Image Analysis, 2nd ed., 2004, section 6.3.4.
    """
    depth_nm = np.float32(max(_DEPTH_FRACTION * seed_spacing_nm, min(spacing_zyx_nm)))
    is_seed_zyx = _maxima(distance_zyx, np.maximum(distance_zyx - depth_nm, np.float32(0)))
    joined_zyx = is_seed_zyx
    if valley_fraction < 1:
        # One plateau per object, wide: its highest peaks are the seeds, so that distances between seeds stay theirs.
        joined_zyx = _maxima(distance_zyx, np.float32(valley_fraction) * distance_zyx)
        is_seed_zyx &= joined_zyx
    if not is_seed_zyx.any():
        return np.zeros(distance_zyx.shape, np.int32)
    to_seed_zyx = edt.edt(~is_seed_zyx, anisotropy=spacing_zyx_nm, black_border=False, parallel=1)
    near_zyx = joined_zyx | ((to_seed_zyx < 0.5 * seed_spacing_nm) & (distance_zyx > 0))
    groups_zyx = cc3d.connected_components(
        near_zyx, connectivity=HOLE_CONNECTIVITY, out_dtype=np.uint32, binary_image=True
    )
    seeds_zyx = np.zeros(distance_zyx.shape, np.int32)
    # A group may lie in another limb and hold no seed: number those that do.
    seeds_zyx[is_seed_zyx] = np.unique(groups_zyx[is_seed_zyx], return_inverse=True)[1] + 1
    return seeds_zyx


def _maxima(distance_zyx: NDArray[np.float32], lowered_zyx: NDArray[np.float32]) -> MaskArray:
    """Mark the plateaus that are left of a distance map where it is cut down as far as a lower one allows.

    Two peaks of one height over a shallow dip stand on the same plateau.
    """
    flooded_zyx = reconstruction(lowered_zyx, distance_zyx, method="dilation")
    return local_maxima(flooded_zyx).astype(np.bool_) & (flooded_zyx > 0)
