"""Signed distance fields: from labels to truncated distances in nm, and back to objects.

    outside               inside              outside
    -1 -1 -.7 -.2 | .2 .7  1  1  .7  .2 | -.2 -.7 -1 -1        s / tau, zero where two voxels of different sides meet

A voxel center lies half a voxel away from the surface between it and its neighbor, so the distance to the nearest
center of the other side is shortened by half of the smallest spacing. What lies further than tau from the surface is
cut off: that is what makes a field computed block by block, with a halo of tau, equal to that of the whole.
Sign and truncation: MODEL.md 3 of the method (positive inside). Exact anisotropic distances: package `edt`.
"""

from __future__ import annotations

import math

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from sam4em_core.errors import CoreConfigError

Spacing = tuple[float, float, float]
Vector = tuple[int, int, int]
FieldArray = NDArray[np.float32]
"""Signed distances as fractions of tau, in [-1, 1]."""


def signed_distance(
    labels_zyx: NDArray[np.bool_ | np.unsignedinteger], spacing_nm: Spacing, tau_nm: float
) -> FieldArray:
    """Compute the truncated signed distance to the surface of the nearest object.

    Where labels are instances, the surface between two touching objects counts too: both sides fall to zero there, so
    that their field can be parted again.

    Args:
        labels_zyx: a mask, or instance labels with 0 as background, shape (z, y, x).
        spacing_nm: voxel size.
        tau_nm: distances are cut off here.

    Returns:
        Distance / tau in [-1, 1], float32, the labels' shape: positive inside, +-1 where one side fills everything.

    Raises:
        CoreConfigError: the labels are no volume of booleans or unsigned integers, or tau or a spacing is not
            positive, or tau is less than half of the smallest spacing.
    """
    _check(labels_zyx, spacing_nm, tau_nm)
    labels = np.ascontiguousarray(labels_zyx)
    half = min(spacing_nm) / 2
    inside = _distance(labels, spacing_nm)
    outside = _distance(labels == 0, spacing_nm)
    # Each of the two is zero on the other's side.
    distance = np.where(labels != 0, inside - np.float32(half), np.float32(half) - outside)
    field: FieldArray = np.clip(distance / np.float32(tau_nm), -1, 1).astype(np.float32, copy=False)
    return field


def halo_voxels(spacing_nm: Spacing, tau_nm: float) -> Vector:
    """Voxels around a block with which its field equals that of the whole volume."""
    reach = tau_nm + min(spacing_nm) / 2
    z, y, x = (math.ceil(reach / size) + 1 for size in spacing_nm)
    return z, y, x


def mask_of(field_zyx: FieldArray) -> NDArray[np.bool_]:
    """The voxels inside: the inverse of `signed_distance` of a mask."""
    inside: NDArray[np.bool_] = field_zyx > 0
    return inside


def seeds_of(field_zyx: FieldArray, depth: float) -> NDArray[np.uint32]:
    """Label the cores of objects: connected regions deeper than `depth`.

    Args:
        field_zyx: signed distance / tau.
        depth: fraction of tau, in (0, 1); necks thinner than twice this depth part an object.

    Returns:
        Labels dense from 1 (26-connected), shape (z, y, x).

    Raises:
        CoreConfigError: depth is not between 0 and 1.
    """
    if not 0 < depth < 1:
        raise CoreConfigError(f"making seeds: depth is {depth}; it is a fraction of tau between 0 and 1")
    return _components(field_zyx > depth)


def instances_of(field_zyx: FieldArray, depth: float) -> NDArray[np.uint32]:
    """Part a field into objects: flooding from the seeds, deepest voxels first.

    An object without a voxel deeper than `depth` is kept whole, as a component of its own.

    Args:
        field_zyx: signed distance / tau.
        depth: see `seeds_of`.

    Returns:
        Labels dense from 1, 0 outside, shape (z, y, x).

    Raises:
        CoreConfigError: depth is not between 0 and 1.
    """
    inside = mask_of(field_zyx)
    markers = seeds_of(field_zyx, depth)
    components = _components(inside)
    seeded = np.zeros(int(components.max(initial=0)) + 1, dtype=np.bool_)
    seeded[components[markers > 0]] = True
    shallow = inside & ~seeded[components]
    markers[shallow] = _components(shallow)[shallow] + markers.max(initial=np.uint32(0))
    flooded = watershed(-field_zyx, markers.astype(np.int32), mask=inside, connectivity=np.ones((3, 3, 3)))
    labels: NDArray[np.uint32] = flooded.astype(np.uint32)
    return labels


def _components(mask_zyx: NDArray[np.bool_]) -> NDArray[np.uint32]:
    return np.asarray(cc3d.connected_components(mask_zyx, connectivity=26, out_dtype=np.uint32), dtype=np.uint32)


def _distance(labels: NDArray[np.bool_ | np.unsignedinteger], spacing_nm: Spacing) -> FieldArray:
    """Distance of every labelled voxel to the nearest center of another label, nm; infinite where there is none."""
    distance: FieldArray = edt.edt(labels, anisotropy=spacing_nm, black_border=False, order="C", parallel=1)
    return distance


def _check(labels: NDArray[np.bool_ | np.unsignedinteger], spacing_nm: Spacing, tau_nm: float) -> None:
    if labels.ndim != 3 or labels.dtype.kind not in "bu":
        raise CoreConfigError(
            f"computing signed distances: labels have {labels.ndim} axes and type {labels.dtype}, expected three axes "
            "and booleans or unsigned integers"
        )
    if not all(0 < size < math.inf for size in spacing_nm) or not min(spacing_nm) / 2 <= tau_nm < math.inf:
        raise CoreConfigError(
            f"computing signed distances: spacing {spacing_nm} nm and tau {tau_nm} nm; both must be positive, and tau "
            "at least half of the smallest spacing"
        )
