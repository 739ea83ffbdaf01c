"""Reading what an earlier stage left, and saying which task makes it again when it is gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from pipeline.errors import IntermediateLost
from pipeline.geometry import BlockGrid, Box
from pipeline.storage import LostChunk, ScratchArray


def read_intermediate(
    array: ScratchArray, box: Box, stage: str, grid: BlockGrid, is_blank: Callable[[Box], bool] | None = None
) -> NDArray[Any]:
    """Read a box of an intermediate array.

    Args:
        array: what an earlier stage wrote.
        box: voxels to read.
        stage: the stage that wrote it.
        grid: that stage's blocks.
        is_blank: see `ScratchArray.read`.

    Raises:
        IntermediateLost: a chunk that was written is gone; names the task that makes it.
        CorruptData: a chunk does not decode.
    """
    try:
        return array.read(box, is_blank)
    except LostChunk as error:
        (block,) = grid.touched_by(error.box)
        raise IntermediateLost(
            f"{error}; the same command makes it again, unless something removes the run's files [made by "
            f"{stage}-{block}]"
        ) from error
