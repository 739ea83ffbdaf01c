"""A color for each id, the same as Neuroglancer's, so that a picture and the viewer agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LOW_32_BITS = np.uint64(0xFFFFFFFF)


def color_of(ids: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.uint8]:
    """Give each id its color; background (0) is black.

    Args:
        ids: unsigned ids of any shape.

    Returns:
        Red, green and blue, shape (*ids.shape, 3). The same id has the same color always.

    Source: neuroglancer, src/gpu_hash/hash_function.ts and src/segment_color.ts, color seed 0.
    """
    wide = np.asarray(ids).astype(np.uint64, casting="safe")
    hashed = _mix(_mix(np.zeros_like(wide), wide & LOW_32_BITS), wide >> np.uint64(32))
    hue = (hashed & np.uint64(0xFF)).astype(np.float64) / 255
    saturation = 0.5 + 0.5 * ((hashed >> np.uint64(8)) & np.uint64(0xFF)).astype(np.float64) / 255
    rgb = np.rint(_rgb_of(hue, saturation) * 255).astype(np.uint8)
    rgb[wide == 0] = 0
    return rgb


def _mix(state: npt.NDArray[np.uint64], value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One round of 32-bit murmur3, in 64-bit integers whose upper half stays 0."""
    value = (value * np.uint64(0xCC9E2D51)) & LOW_32_BITS
    value = ((value << np.uint64(15)) | (value >> np.uint64(17))) & LOW_32_BITS
    value = (value * np.uint64(0x1B873593)) & LOW_32_BITS
    state = state ^ value
    state = ((state << np.uint64(13)) | (state >> np.uint64(19))) & LOW_32_BITS
    return (state * np.uint64(5) + np.uint64(0xE6546B64)) & LOW_32_BITS


def _rgb_of(hue: npt.NDArray[np.float64], saturation: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Convert hue and saturation at full value, each 0..1, to red, green and blue, 0..1."""
    offset = np.array([0.0, 4.0, 2.0])
    distance = np.abs((hue[..., None] * 6 + offset) % 6 - 3) - 1
    return 1 - saturation[..., None] * (1 - np.clip(distance, 0, 1))
