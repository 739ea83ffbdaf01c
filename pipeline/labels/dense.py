"""The ids of one block as small numbers, for libraries that want them so."""

from __future__ import annotations

import fastremap
import numpy as np
from numpy.typing import NDArray

from pipeline.labels.arrays import SegmentArray


def number_densely(ids_zyx: SegmentArray, chosen: SegmentArray | None) -> tuple[NDArray[np.int32], dict[int, int]]:
    """Number the ids of a block from 1.

    Args:
        ids_zyx: ids of the block.
        chosen: the only ids to look at; all others become background. None: all.

    Returns:
        The numbers, and the id of each.
    """
    kept = ids_zyx if chosen is None else np.where(np.isin(ids_zyx, chosen), ids_zyx, np.uint64(0))
    dense, numbers = fastremap.renumber(kept, preserve_zero=True)
    return dense.astype(np.int32), {int(label): int(number) for number, label in numbers.items()}
