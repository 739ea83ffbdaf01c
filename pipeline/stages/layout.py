"""Where everything of a run lies: scratch arrays, small objects, outputs. Addresses follow from the plan.

    RUN/scratch/probabilities            uint8 (channel, z, y, x), working lattice: probability per class, then signed
                                         distance per class where a watershed floods it
    RUN/scratch/labels-CLASS             uint32, output lattice: labels local to a block
    RUN/faces/TTT/BBB-AS                 labels of the slab around side S of axis A (0 lower, 1 upper)
    RUN/statistics/TTT/BBB               one row per label of the block's core
    RUN/blank/TTT/BBB                    of a predict block of one grey value, which has no probabilities
    RUN/edges/TTT/BBB-A                  pairs of labels that share voxels with the next block along axis A
    RUN/groups/TTT/NNN-WHAT              of a group of blocks: its objects, the open ones, and the ids dealt to them
    RUN/luts/TTT/BBB                     label -> id, per class
    RUN/ids.json                         how many ids each class has
    RUN/segments.parquet                 the instance table
    RUN/edges.parquet, seams.parquet     every pair that was judged; what the neighbors at every face disagree about
    RUN/mesh, RUN/skeleton               the runs that make the meshes, the skeletons, with manifests and journals of
                                         their own
    RUN/orders-DIGEST                    a restitched run: pairs that must, or must not, be one object

TTT are the thousands of the block's index, so that no folder holds more than some thousand files. With more than one
group of blocks the three tables are folders with a part per group.
"""

from __future__ import annotations

from typing import Literal

from pipeline.errors import OurError
from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.labels.resolve import MAX_NODES
from pipeline.stages.plan import ClassPlan, RunPlan
from pipeline.storage import ScratchSpec

FACES = "faces"
STATISTICS = "statistics"
EDGES = "edges"
GROUPS = "groups"
LUTS = "luts"
BLANKS = "blank"
SEGMENTS_KEY = "segments.parquet"
EDGES_KEY = "edges.parquet"
SEAMS_KEY = "seams.parquet"
IDS_KEY = "ids.json"
SHAPE_RUN_FOLDERS = ("mesh", "skeleton")
INTERMEDIATE_PREFIXES = (FACES, STATISTICS, EDGES, GROUPS, LUTS, BLANKS)
"""Folders that no stage reads once the outputs are verified; `restitch` and the pictures of `seams` do."""

_BLOCKS_PER_FOLDER = 1000
# A slab of 24 voxels. Source: measured, phantoms of touching objects keep VOI <= 0.02 from there on.
_MIN_REACH_IOU = 12
# Chunks of about 1 MB: large enough for stores, small enough to read a halo without much more.
# An array of more chunks has a shard per block: a petavoxel would have 10^9 files otherwise.
_MAX_LOOSE_CHUNKS = 100_000
_MIN_SCRATCH_CHUNK = 32
_MAX_SCRATCH_CHUNK = 128


def scratch_chunk(core: Vector) -> Vector:
    """Chunk of a scratch array with one writer per core: the largest divisor of each extent up to 128 voxels.

    An extent without a divisor from 32 up to 128 is not divided.
    """
    chunk = [
        max((d for d in range(_MIN_SCRATCH_CHUNK, _MAX_SCRATCH_CHUNK + 1) if extent % d == 0), default=extent)
        for extent in core
    ]
    return (chunk[0], chunk[1], chunk[2])


def scratch_shard(grid: BlockGrid) -> Vector | None:
    """Shard of a scratch array with one writer per block: the block; None where chunks may lie loose."""
    chunk = scratch_chunk(grid.core)
    return grid.core if len(BlockGrid(grid.domain, chunk)) > _MAX_LOOSE_CHUNKS else None


def require_predict_grid(plan: RunPlan) -> BlockGrid:
    """Give the blocks of the predict stage.

    Raises:
        OurError: the plan has no predict stage.
    """
    if plan.predict_grid is None:
        raise OurError("the plan has no predict stage: its segmenter is fused into the label stage")
    return plan.predict_grid


def probabilities_spec(plan: RunPlan) -> ScratchSpec:
    """Describe the scratch array of probabilities."""
    grid = require_predict_grid(plan)
    return ScratchSpec(
        url=f"{plan.run_url}/scratch/probabilities",
        shape_zyx=plan.working_domain.shape,
        chunk_zyx=scratch_chunk(grid.core),
        dtype="uint8",
        num_channels=plan.num_channels,
        shard_zyx=scratch_shard(grid),
    )


def labels_spec(plan: RunPlan, class_plan: ClassPlan) -> ScratchSpec:
    """Describe the scratch array of one class's local labels."""
    return ScratchSpec(
        url=f"{plan.labels_url}/scratch/{labels_name(class_plan)}",
        shape_zyx=plan.output_domain.shape,
        chunk_zyx=scratch_chunk(plan.label_grid.core),
        dtype="uint32",
        shard_zyx=scratch_shard(plan.label_grid),
    )


def labels_name(class_plan: ClassPlan) -> str:
    """Name the scratch array of one class's local labels."""
    return f"labels-{class_plan.name}"


def output_array_name(output_index: int, mip: int) -> str:
    """Name one level of one output in records of write units."""
    return f"output-{output_index}/{mip}"


def collection_urls(plan: RunPlan) -> list[str]:
    """Addresses of the groups that hold one label volume per class."""
    return [section.url for section in plan.config.outputs if len(plan.classes) > 1 and section.format == "ome-zarr"]


def _block_key(folder: str, block: int) -> str:
    return f"{folder}/{block // _BLOCKS_PER_FOLDER:03d}/{block % _BLOCKS_PER_FOLDER:03d}"


def face_key(block: int, axis: int, side: int) -> str:
    """Key of the labels around one side of a block; `side` is 0 below, 1 above."""
    return f"{_block_key(FACES, block)}-{axis}{side}"


def statistics_key(block: int) -> str:
    """Key of the measures of a block's labels."""
    return _block_key(STATISTICS, block)


def edges_key(block: int, axis: int) -> str:
    """Key of the pairs that a block shares with the next one along `axis`."""
    return f"{_block_key(EDGES, block)}-{axis}"


def lut_key(block: int) -> str:
    """Key of the map from a block's labels to ids."""
    return _block_key(LUTS, block)


def group_key(node: int, what: Literal["open", "solved", "ids"]) -> str:
    """Key of what is known of a group of blocks: its open objects, its solution, or the ids of its open objects."""
    return f"{_block_key(GROUPS, node)}-{what}"


def part_key(table: str, plan: RunPlan, node: int) -> str:
    """Key of the part of a table that one group writes; the table itself where there is one group."""
    return table if plan.group_tree.num_nodes == 1 else f"{table}/{node:07d}.parquet"


def blank_key(block: int) -> str:
    """Key of the note that a predict block has one grey value, and so no probabilities."""
    return _block_key(BLANKS, block)


def column(class_index: int, name: str) -> str:
    """Name the column of one class in a table that holds those of all classes."""
    return f"class{class_index}_{name}"


def face_box(grid: BlockGrid, block: int, axis: int, side: int, reach: int) -> Box:
    """Give the slab around one side of a block: `reach` voxels to both sides of the face.

    Args:
        grid: blocks of the label stage.
        block: index.
        axis: 0 z, 1 y, 2 x.
        side: 0 for the face at the core's start, 1 for the one at its stop.
        reach: voxels on each side of the face.

    Returns:
        The box, as wide as the core along the other axes, clipped to the domain: the same whichever of the two
        neighbors asks.
    """
    core = grid.box(block)
    face = core.stop[axis] if side else core.start[axis]
    start, stop = list(core.start), list(core.stop)
    start[axis], stop[axis] = face - reach, face + reach
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).intersection(grid.domain)


def slab_reach(plan: RunPlan, class_plan: ClassPlan, axis: int) -> int:
    """Give the voxels on each side of a face that two neighbors compare.

    One is enough for "any shared voxel", and exact. An overlap is judged over half the halo: next to the end of
    the halo a watershed lacks what lies beyond, and cuts elsewhere.
    """
    if class_plan.stitch == "any":
        return 1
    halo = plan.label_halo_zyx[axis]
    return max(halo // 2, min(halo, _MIN_REACH_IOU))


def max_labels_per_block(plan: RunPlan) -> int:
    """Give the labels of one class that every block of a leaf may have: one graph numbers its nodes in 31 bits."""
    leaf = plan.group_tree.leaf
    return MAX_NODES // (leaf[0] * leaf[1] * leaf[2])
