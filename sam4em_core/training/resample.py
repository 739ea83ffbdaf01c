"""Moving images and labels between lattices of different voxel size, anchored at the volume's origin.

Voxel i of a lattice with spacing v covers [i*v, (i+1)*v) nm from the origin, so a coarser voxel is the
mean of what it covers, and a finer one lies on the line between its neighbours' centers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def target_length(source_length: int, source_nm: float, target_nm: float) -> int:
    """Count the target voxels that lie wholly inside `source_length` source voxels; at least 1."""
    return max(1, math.floor(source_length * source_nm / target_nm + 1e-6))


def axis_weights(
    source_length: int,
    target_length: int,
    source_nm: float,
    target_nm: float,
    lead_nm: float = 0.0,
) -> FloatArray:
    """Give the matrix (target, source) that resamples one axis; each row sums to 1.

    Args:
        source_length: voxels that exist.
        target_length: voxels wanted.
        source_nm: spacing of the source, nm.
        target_nm: spacing of the target, nm.
        lead_nm: how far the target's first voxel lies behind the source's, nm; the border voxel repeats.
    """
    if target_nm >= source_nm:
        target_start = np.arange(target_length)[:, None] * target_nm + lead_nm
        source_start = np.arange(source_length)[None, :] * source_nm
        overlap = np.minimum(target_start + target_nm, source_start + source_nm) - np.maximum(
            target_start, source_start
        )
        weights = np.clip(overlap, 0.0, None)
    else:
        center = ((np.arange(target_length)[:, None] + 0.5) * target_nm + lead_nm) / source_nm - 0.5
        center = np.clip(center, 0.0, source_length - 1.0)
        weights = np.clip(1.0 - np.abs(center - np.arange(source_length)[None, :]), 0.0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def resample_float(
    values_zyx: npt.NDArray[np.generic],
    source_zyx_nm: tuple[float, float, float],
    target_zyx_nm: tuple[float, float, float],
    target_shape_zyx: tuple[int, int, int] | None = None,
    lead_z_nm: float = 0.0,
) -> FloatArray:
    """Resample by area where voxels grow and linearly where they shrink.

    Args:
        values_zyx: any real array; its first voxel lies at the origin.
        source_zyx_nm: its voxel size, nm.
        target_zyx_nm: the voxel size wanted, nm.
        target_shape_zyx: shape of the result; by default all voxels wholly inside.
        lead_z_nm: how far the result's first slice lies behind the array's, nm.
    """
    result = np.asarray(values_zyx, dtype=np.float32)
    for axis in range(3):
        source_nm, target_nm = source_zyx_nm[axis], target_zyx_nm[axis]
        length = result.shape[axis]
        wanted = target_length(length, source_nm, target_nm) if target_shape_zyx is None else target_shape_zyx[axis]
        lead_nm = lead_z_nm if axis == 0 else 0.0
        if source_nm == target_nm and wanted == length and lead_nm == 0:
            continue
        weights = axis_weights(length, wanted, source_nm, target_nm, lead_nm)
        result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result, dtype=np.float32)


def resample_labels(
    labels_zyx: npt.NDArray[np.uint8],
    source_zyx_nm: tuple[float, float, float],
    target_zyx_nm: tuple[float, float, float],
    unlabelled: int,
) -> npt.NDArray[np.uint8]:
    """Resample 0 / 1 / unlabelled: 1 where half of the labelled part of a voxel is the class.

    A voxel that is less than half labelled is unlabelled.
    """
    if source_zyx_nm == target_zyx_nm:
        return labels_zyx
    known = resample_float(labels_zyx != unlabelled, source_zyx_nm, target_zyx_nm)
    inside = resample_float(labels_zyx == 1, source_zyx_nm, target_zyx_nm)
    result = (inside >= 0.5 * np.maximum(known, 1e-6)).astype(np.uint8)
    result[known < 0.5] = unlabelled
    return result
