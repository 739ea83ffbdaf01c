"""What the second stage of all shapes does the same way: collect the fragments of a range of ids.

1. the objects of the range that are wanted, with their bounding boxes
2. the blocks that these touch; of each the fragments that belong to the range
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import IntermediateLost, VolumeNotFound
from pipeline.geometry import Box
from pipeline.labels.arrays import SegmentArray
from pipeline.stages.report import WrittenUnit
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_plan import FRAGMENT_IDS, FRAGMENTS, ShapedVolume, ShapePlan, fragment_key, shape_unit
from pipeline.storage import unpack_table

Fragment_co = TypeVar("Fragment_co", covariant=True)
Fragment = TypeVar("Fragment")


class Packed(Protocol[Fragment_co]):
    """The fragments of one block, object after object."""

    @property
    def ids(self) -> SegmentArray:
        """Their objects, ascending."""
        ...

    def of(self, index: int) -> Fragment_co:
        """Give one object's fragment."""
        ...


def wanted_objects(number: int, shard: int, plan: ShapePlan, context: ShapeContext) -> pa.Table:
    """Give the rows of the instance table of a shard's objects that are to have a shape.

    Raises:
        WorldError: the table is gone or damaged.
    """
    volume, size = plan.volumes[number], plan.section.objects_per_shard
    first = shard * size
    rows = context.rows(volume, max(first, volume.first_id), first + size - 1)
    voxel_nm3 = float(np.prod(plan.volumes[0].spec.voxel_size_zyx_nm))
    is_wanted = rows["voxels"].to_numpy() * voxel_nm3 >= plan.section.min_size_nm3
    if context.chosen is not None:
        is_wanted &= np.isin(rows["id"].to_numpy(), context.chosen)
    return rows.filter(pa.array(np.asarray(is_wanted, np.bool_)))


def gather_fragments(
    number: int,
    rows: pa.Table,
    plan: ShapePlan,
    context: ShapeContext,
    unpack: Callable[..., Packed[Fragment]],
) -> dict[int, list[Fragment]]:
    """Collect the fragments of objects; those without any have no entry.

    Args:
        number: which volume.
        rows: of the instance table.
        plan: the plan of the shapes.
        context: where things are.
        unpack: makes the fragments of a block from the columns of its table.

    Raises:
        IntermediateLost: what a block has left is gone.
    """
    blocks: set[int] = set()
    offset = plan.volumes[number].spec.offset_zyx_voxels
    for row in rows.to_pylist():
        box = Box((row["z0"], row["y0"], row["x0"]), (row["z1"], row["y1"], row["x1"])).relative_to(offset)
        blocks.update(plan.blocks_of(box))
    wanted = np.sort(rows["id"].to_numpy())
    pieces: dict[int, list[Fragment]] = {}
    for block in sorted(blocks):
        found = np.isin(_read(FRAGMENT_IDS, number, block, plan, context)["ids"], wanted)
        if found.any():
            fragments = unpack(**_read(FRAGMENTS, number, block, plan, context))
            for index in np.flatnonzero(found):
                pieces.setdefault(int(fragments.ids[index]), []).append(fragments.of(int(index)))
    return dict(sorted(pieces.items()))


def in_nm(places_zyx: NDArray[np.float64], volume: ShapedVolume, plan: ShapePlan) -> NDArray[np.float64]:
    """Turn voxels of the level that was read into nm of the full volume, as precomputed counts them."""
    start_nm = np.array(_start_voxel(volume)) * np.array(volume.spec.voxel_size_zyx_nm)
    # A voxel's center lies half a voxel beyond its index.
    return (places_zyx + 0.5) * np.array(plan.voxel_size_zyx_nm) + start_nm


def checksum_of(data: bytes) -> int:
    """Give the CRC-32C of a file of shapes."""
    return int(google_crc32c.value(data))


def written_units(number: int, plan: ShapePlan, files: Iterable[tuple[int, bytes]]) -> tuple[WrittenUnit, ...]:
    """Give the records of files, from the first id in each and its bytes."""
    name = shape_unit(plan, number)
    return tuple(WrittenUnit(name, (0, 0, segment), checksum_of(data)) for segment, data in files)


def _start_voxel(volume: ShapedVolume) -> list[float]:
    """Give the place of the volume's first voxel among those of the full volume, as precomputed counts them."""
    spec = volume.spec
    origin = spec.origin_zyx_nm or (0.0, 0.0, 0.0)
    sizes = zip(spec.offset_zyx_voxels, origin, spec.voxel_size_zyx_nm, strict=True)
    return [offset + np.floor(nm / size + 0.5) for offset, nm, size in sizes]


def _read(folder: str, number: int, block: int, plan: ShapePlan, context: ShapeContext) -> dict[str, NDArray[Any]]:
    key = fragment_key(folder, number, block)
    try:
        return unpack_table(context.objects.get(key), key)
    except VolumeNotFound as error:
        raise IntermediateLost(
            f"joining {plan.made}: {key} is gone; the same command makes it again, unless something removes the run's "
            f"files [made by {plan.kind}-{number * len(plan.grid) + block}]"
        ) from error
