"""What the first stage of all shapes does the same way: read a block, leave fragments of the objects in it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pipeline.geometry import Box
from pipeline.labels.arrays import SegmentArray
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_plan import FRAGMENT_IDS, FRAGMENTS, fragment_key
from pipeline.storage import LabelVolumeWriter, pack_table


class Fragments(Protocol):
    """Named arrays, such as `SkeletonFragments`."""

    @property
    def ids(self) -> SegmentArray:
        """Objects of which there is a fragment, ascending."""
        ...

    def _asdict(self) -> dict[str, Any]: ...


def put_fragments(number: int, block: int, fragments: Fragments, context: ShapeContext) -> None:
    """Leave what one block of one volume holds, for those who join it.

    Raises:
        WorldError: the store failed.
    """
    if len(fragments.ids):
        packed = pack_table(fragments._asdict(), compress=True)
        context.objects.put(fragment_key(FRAGMENTS, number, block), packed)
    # Last, and of every block: who joins fragments must know whether one is missing.
    context.objects.put(fragment_key(FRAGMENT_IDS, number, block), pack_table({"ids": fragments.ids}))


def read_padded(volume: LabelVolumeWriter, mip: int, box: Box) -> SegmentArray:
    """Read a box of which one plane may lie beyond the volume on each side; there is background."""
    inside = box.intersection(Box.of_shape(volume.spec.shape(mip)))
    ids_zyx = volume.read(mip, inside)
    if inside == box:
        return ids_zyx
    padded_zyx = np.zeros(box.shape, np.uint64)
    padded_zyx[inside.relative_to(box.start).slices] = ids_zyx
    return padded_zyx
