"""The array types of this room.

Ids are unsigned integers, 0 is background, and no float ever touches one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError

LabelArray = NDArray[np.uint32]
"""Labels local to one block, dense from 1; 0 is background."""
SegmentArray = NDArray[np.uint64]
"""Ids of the whole volume; 0 is background."""
AnyLabelArray = NDArray[np.unsignedinteger[Any]]
"""Local labels or segments."""
ProbabilityArray = NDArray[np.uint8]
"""Probabilities as round(255 * p)."""
MaskArray = NDArray[np.bool_]
"""True inside."""


def check_unsigned(array: NDArray[Any], doing: str) -> None:
    """Refuse arrays that cannot hold ids.

    Args:
        array: what should hold ids.
        doing: what was being done, for the message.

    Raises:
        OurError: the array is not of an unsigned integer type.
    """
    if array.dtype.kind != "u":
        raise OurError(f"{doing}: ids must be unsigned integers, found {array.dtype}")


def check_same_shape(first: NDArray[Any], second: NDArray[Any], doing: str) -> None:
    """Refuse a pair of arrays that should cover the same voxels and do not.

    Args:
        first: one array.
        second: the other.
        doing: what was being done, for the message.

    Raises:
        OurError: the shapes differ.
    """
    if first.shape != second.shape:
        raise OurError(f"{doing}: shapes must be equal, found {first.shape} and {second.shape}")
