"""Choosing block shapes: as large as the memory of one task allows, whole write units, z-slabs first.

1. A slab takes the whole y and x extent and as many z units as fit, up to `_MAX_SLAB_VOXELS`.
2. Where one z unit of a slab does not fit, y and x are halved, the longer one first.
3. Where work is shared by neighboring blocks and done by each (patches of a U-Net), a narrower and deeper block may
   cost less than a slab: the cheapest of those that fit is taken, of equals the widest.
4. Where one unit does not fit, the plan is refused with the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from pipeline.errors import PlanError
from pipeline.geometry import BlockGrid, Box, Vector, ceil_div, nests

# Deeper slabs save little halo and leave workers idle at the end of a run.
_MAX_SLAB_VOXELS = 96
# But for work that blocks share, of which deeper ones do less.
_MAX_SHARED_VOXELS = 256
# Ids are uint64, labels of a block uint32.
_MAX_ID = 2**64 - 1
_MAX_LABEL = 2**32 - 1
# A volume is cut into so many blocks where it allows that, so that a handful of workers all have some.
_MIN_BLOCKS = 4
# A model's context reaches at most this many blocks over a border; around thin blocks a U-Net's patches reach further,
# and the blocks next to these are then counted with a little more than they read.
_BORDER_BLOCKS = 2
# Blocks further in are alike, but for where they lie on the model's grids: so many neighbors stand for them.
_MIDDLE_BLOCKS = 4


def fitting_core(
    domain: Box,
    unit_zyx: Vector,
    bytes_of_core: Callable[[Vector], int],
    limit_bytes: int,
    stage: str,
    cost_of_core: Callable[[Vector], float] | None = None,
) -> Vector:
    """Choose the core of a stage's blocks.

    Args:
        domain: what is to be covered.
        unit_zyx: the core is a multiple of this along every axis.
        bytes_of_core: projected bytes of a task with the given core.
        limit_bytes: bytes one task may use.
        stage: name of the stage, for the error.
        cost_of_core: work of the whole stage with such blocks, in any unit; default: all shapes cost the same.

    Returns:
        Core shape in voxels.

    Raises:
        PlanError: a core of one unit does not fit.
    """
    units = [max(1, ceil_div(extent, unit)) for extent, unit in zip(domain.shape, unit_zyx, strict=True)]
    # A slab is thin enough for several to lie above each other; blocks that share work may lie side by side instead.
    depths = [(min(units[0] // _MIN_BLOCKS, _MAX_SLAB_VOXELS // unit_zyx[0]), 1)]
    if cost_of_core is not None:
        depths.append((min(units[0], _MAX_SHARED_VOXELS // unit_zyx[0]), min(_MIN_BLOCKS, math.prod(units))))

    def deepest(plane: tuple[int, int], most: int, fewest_blocks: int) -> Vector | None:
        for depth in range(max(1, most), 0, -1):
            core = (depth * unit_zyx[0], plane[0] * unit_zyx[1], plane[1] * unit_zyx[2])
            num_blocks = math.prod(map(ceil_div, units, (depth, *plane)))
            if num_blocks >= fewest_blocks and bytes_of_core(core) <= limit_bytes:
                return core
        return None

    found = (deepest(plane, *depth) for plane in _halvings(units[1], units[2], unit_zyx) for depth in depths)
    cores = (core for core in found if core is not None)
    chosen = next(cores, None) if cost_of_core is None else min(cores, key=cost_of_core, default=None)
    if chosen is None:
        raise PlanError(
            f"planning {stage}: one block of {unit_zyx} voxels needs {bytes_of_core(unit_zyx):,} bytes, a task may "
            f"use {limit_bytes:,}; raise plan.task_memory_gib or choose smaller chunks or shards"
        )
    return chosen


def _halvings(num_y: int, num_x: int, unit_zyx: Vector) -> Iterator[tuple[int, int]]:
    """Yield units along y and x: the whole plane, then halves of the longer axis, down to one unit."""
    while True:
        yield num_y, num_x
        if num_y == num_x == 1:
            return
        if num_x == 1 or (num_y > 1 and num_y * unit_zyx[1] >= num_x * unit_zyx[2]):
            num_y = ceil_div(num_y, 2)
        else:
            num_x = ceil_div(num_x, 2)


def sum_over_blocks(grid: BlockGrid, figure: Callable[[Box], int]) -> int:
    """Add up a figure over all blocks, asking once per kind of block.

    Args:
        grid: the blocks.
        figure: depends on a block's size and on its distance to the border, when that is below two blocks; what it is
            further in, it is on average in a few neighboring blocks.
    """
    return sum(
        count_z * count_y * count_x * figure(grid.box(grid.index((z, y, x))))
        for z, count_z in _kinds(grid.shape[0])
        for y, count_y in _kinds(grid.shape[1])
        for x, count_x in _kinds(grid.shape[2])
    )


def _kinds(count: int) -> Iterator[tuple[int, int]]:
    """Yield positions along an axis and how many blocks each stands for."""
    inner = count - 2 * _BORDER_BLOCKS
    if inner <= _MIDDLE_BLOCKS:
        yield from ((position, 1) for position in range(count))
        return
    for position in range(_BORDER_BLOCKS):
        yield position, 1
        yield count - 1 - position, 1
    for number in range(_MIDDLE_BLOCKS):
        yield _BORDER_BLOCKS + number, (inner + number) // _MIDDLE_BLOCKS


def halved_to_fit(
    unit_zyx: Vector, floor_zyx: Vector, bytes_of_core: Callable[[Vector], int], limit_bytes: int
) -> Vector:
    """Halve a write unit along its longest axes until a block of it fits; several blocks then share a unit.

    Args:
        unit_zyx: what is written whole.
        floor_zyx: no axis gets shorter.
        bytes_of_core: projected bytes of a task with the given core.
        limit_bytes: bytes one task may use.

    Returns:
        A divisor of the unit; it may still not fit, where it cannot be halved any more.
    """
    core = unit_zyx
    while bytes_of_core(core) > limit_bytes:
        halves = [axis for axis in range(3) if core[axis] % 2 == 0 and core[axis] // 2 >= floor_zyx[axis]]
        if not halves:
            break
        longest = max(halves, key=lambda axis: core[axis])
        shape = [extent // 2 if axis == longest else extent for axis, extent in enumerate(core)]
        core = (shape[0], shape[1], shape[2])
    return core


def common_unit(units_zyx: list[Vector], what: str) -> Vector:
    """Give the smallest cell that holds whole write units of every output.

    Raises:
        PlanError: two write units do not nest.
    """
    cell = units_zyx[0]
    for unit in units_zyx[1:]:
        if not nests(cell, unit):
            raise PlanError(
                f"planning {what}: write units {cell} and {unit} voxels do not nest; along every axis one must be a "
                "multiple of the other: change chunk_zyx or shard_zyx of an output"
            )
        cell = (max(cell[0], unit[0]), max(cell[1], unit[1]), max(cell[2], unit[2]))
    return cell


def check_block(block_zyx: Vector, unit_zyx: Vector) -> None:
    """Refuse a label block that does not nest with the write units.

    Raises:
        PlanError: along some axis neither is a multiple of the other.
    """
    if not nests(block_zyx, unit_zyx):
        raise PlanError(
            f"planning label: block {block_zyx} and write unit {unit_zyx} voxels do not nest; along every axis one "
            "must be a multiple of the other: change plan.block_zyx, or chunk_zyx or shard_zyx of an output"
        )


def check_ids(domain_zyx: Vector, num_classes: int, block_zyx: Vector, halo_zyx: Vector) -> None:
    """Refuse volumes whose ids, and blocks whose labels, could pass the end of their integers.

    Every id has at least one voxel, so the number of voxels bounds the number of ids.

    Raises:
        PlanError: with the numbers.
    """
    num_ids = math.prod(domain_zyx) * num_classes
    if num_ids > _MAX_ID:
        raise PlanError(
            f"planning resolve: {domain_zyx} voxels of {num_classes} classes could hold {num_ids:,} objects, ids end "
            f"at {_MAX_ID:,}; choose a smaller region or fewer classes"
        )
    num_voxels = math.prod(extent + 2 * halo for extent, halo in zip(block_zyx, halo_zyx, strict=True))
    if num_voxels > _MAX_LABEL:
        raise PlanError(
            f"planning label: a block of {block_zyx} voxels with its halo has {num_voxels:,}, labels of a block end at "
            f"{_MAX_LABEL:,}; make plan.block_zyx smaller"
        )


def mip_factor(voxel_size_nm: tuple[float, float, float]) -> Vector:
    """Down-sample the axes that are fine, so that levels become isotropic."""
    finest = min(voxel_size_nm)
    factors = [2 if size <= 1.5 * finest else 1 for size in voxel_size_nm]
    return (factors[0], factors[1], factors[2])


def num_mips_of(shape_zyx: Vector, chunk_zyx: Vector) -> int:
    """Count levels until one chunk holds a slice, at most 8."""
    widest = max(shape_zyx[1] / chunk_zyx[1], shape_zyx[2] / chunk_zyx[2], 1.0)
    return min(8, 1 + math.ceil(math.log2(widest)))
