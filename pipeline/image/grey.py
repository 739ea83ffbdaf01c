"""Grey ranges: one mapping of grey values to [0, 1] for a whole volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GreyRange:
    """The grey values that map to 0 and 1."""

    low: float
    """Grey value that maps to 0."""
    high: float
    """Grey value that maps to 1; above `low`."""


def rescale(image_zyx: NDArray[Any], grey_range: GreyRange) -> NDArray[np.float32]:
    """Map grey values to [0, 1], clipping what lies outside the range.

    Args:
        image_zyx: grey values, any real dtype, any shape.
        grey_range: the values that map to 0 and 1.

    Returns:
        float32 of the same shape, in [0, 1].
    """
    scale = np.float32(1.0 / (grey_range.high - grey_range.low))
    scaled = np.subtract(image_zyx, np.float32(grey_range.low), dtype=np.float32)
    scaled *= scale
    return np.clip(scaled, 0.0, 1.0, out=scaled)


def is_constant(image_zyx: NDArray[Any]) -> bool:
    """Whether every voxel has the same grey value: padding, resin, a missing tile."""
    return image_zyx.size == 0 or bool((image_zyx == image_zyx.flat[0]).all())


def histogram_range(histogram: NDArray[np.int64], low_fraction: float, high_fraction: float) -> GreyRange:
    """Read a grey range off a histogram of integer grey values.

    Grey values 0 and the largest possible one are padding or saturation in most volumes and are left out
    when anything else is there.

    Args:
        histogram: number of voxels per grey value, shape (256,) or (65536,).
        low_fraction: fraction of the voxels below the range.
        high_fraction: fraction of the voxels below its upper end.

    Returns:
        The range; at least one grey value wide, the whole dtype where no voxel was counted.
    """
    counts = histogram.copy()
    if counts[1:-1].sum() > 0:
        counts[0] = counts[-1] = 0
    total = int(counts.sum())
    if total == 0:
        return GreyRange(0.0, float(len(histogram) - 1))
    cumulative = np.cumsum(counts)
    low = int(np.searchsorted(cumulative, low_fraction * total))
    high = int(np.searchsorted(cumulative, high_fraction * total))
    return GreyRange(float(low), float(max(high, low + 1)))


def count_grey_values(images: Iterable[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[np.int64]:
    """Count how often each grey value occurs in some pieces of a volume.

    Args:
        images: arrays of uint8 or uint16.
        dtype: the dtype all of them have.

    Returns:
        int64 of shape (256,) or (65536,).
    """
    num_values = int(np.iinfo(dtype).max) + 1
    histogram = np.zeros(num_values, np.int64)
    for image in images:
        histogram += np.bincount(image.ravel(), minlength=num_values)
    return histogram
