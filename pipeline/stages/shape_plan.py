"""The plan of the shapes (meshes, skeletons) of a finished run's objects; the driver makes it and sends it to workers.

    DIRECTORY/fragment-ids/VV/TTT/BBB    ids whose shape a block holds a part of
    DIRECTORY/fragments/VV/TTT/BBB       those parts; no object where there is none

VV is the volume, TTT are the thousands of the block's index. Tasks of the first stage are blocks, volume by volume;
those of the second are ranges of ids that share a shard, so each file has one writer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from pipeline.config.shapes import MeshSection, ShapeSection, SkeletonSection
from pipeline.errors import OurError
from pipeline.geometry import BlockGrid, Box, Spacing, Vector, ceil_div
from pipeline.storage import LabelFormat, LabelVolumeSpec

FRAGMENT_IDS: Final = "fragment-ids"
FRAGMENTS: Final = "fragments"
FRAGMENT_FOLDERS: Final = (FRAGMENT_IDS, FRAGMENTS)
_BLOCKS_PER_FOLDER: Final = 1000


@dataclass(frozen=True)
class RowGroup:
    """Rows of the instance table that are read together."""

    key: str
    """The table, or one of its parts."""
    number: int
    """Which row group of it."""
    first_id: int
    """The smallest id in it."""
    last_id: int
    """The largest."""


@dataclass(frozen=True)
class ShapedVolume:
    """One label volume and the shapes of its objects."""

    format: LabelFormat
    """Format of the volume."""
    spec: LabelVolumeSpec
    """The volume, as it was written."""
    url: str
    """Folder of the shapes."""
    first_id: int
    """Ids of its class begin here."""
    num_ids: int
    """How many its class has."""
    rows: tuple[RowGroup, ...]
    """Where the instance table has them, by id."""

    @property
    def last_id(self) -> int:
        """The largest id; below `first_id` where there is none."""
        return self.first_id + self.num_ids - 1


@dataclass(frozen=True)
class ShapePlan:
    """Everything that the stages must know."""

    kind: ClassVar[str]
    """Name of the first stage; the second one is `KIND-join`."""
    made: ClassVar[str]
    """What is made, for messages."""

    section: ShapeSection
    """What the user wants."""
    run_url: str
    """Directory of the run whose objects these are."""
    url: str
    """Own directory: manifest, journal, fragments."""
    block_zyx: Vector
    """Core of a block, voxels of the level that is read."""
    volumes: tuple[ShapedVolume, ...]
    """One per class."""

    @property
    def grid(self) -> BlockGrid:
        """Blocks of every volume: all have the same shape."""
        return BlockGrid(Box.of_shape(self.volumes[0].spec.shape(self.section.mip)), self.block_zyx)

    @property
    def voxel_size_zyx_nm(self) -> Spacing:
        """Voxel size of the level that is read."""
        return self.volumes[0].spec.voxel_size(self.section.mip)

    def num_block_tasks(self) -> int:
        """Give the tasks of the first stage."""
        return len(self.volumes) * len(self.grid)

    def num_join_tasks(self) -> int:
        """Give the tasks of the second stage."""
        return sum(self.num_shards(volume) for volume in self.volumes)

    def num_shards(self, volume: ShapedVolume) -> int:
        """Give the ranges of ids of a volume: each is one file, and one task."""
        size = self.section.objects_per_shard
        return 0 if volume.num_ids == 0 else volume.last_id // size - volume.first_id // size + 1

    def locate_shard(self, index: int) -> tuple[int, int]:
        """Turn the index of a task of the second stage into a volume and a shard.

        Raises:
            OurError: there is no such task.
        """
        rest = index
        for number, volume in enumerate(self.volumes):
            if rest < self.num_shards(volume):
                return number, volume.first_id // self.section.objects_per_shard + rest
            rest -= self.num_shards(volume)
        raise OurError(f"{self.kind}-join task {index} does not exist; there are {self.num_join_tasks()}")

    def blocks_of(self, box: Box) -> list[int]:
        """Give the blocks that may hold a part of the shape of an object within a box of finest voxels."""
        factor = self.volumes[0].spec.factor(self.section.mip)
        start = [first // step - 1 for first, step in zip(box.start, factor, strict=True)]
        stop = [ceil_div(last, step) for last, step in zip(box.stop, factor, strict=True)]
        return list(self.grid.touched_by(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))))


@dataclass(frozen=True)
class MeshPlan(ShapePlan):
    """Everything that the mesh stages must know."""

    kind: ClassVar[str] = "mesh"
    made: ClassVar[str] = "meshes"

    section: MeshSection

    @property
    def max_error_nm(self) -> float:
        """How far simplification may move a surface."""
        return self.section.max_error_nm or max(self.voxel_size_zyx_nm)


@dataclass(frozen=True)
class SkeletonPlan(ShapePlan):
    """Everything that the skeleton stages must know."""

    kind: ClassVar[str] = "skeleton"
    made: ClassVar[str] = "skeletons"

    section: SkeletonSection


def shape_unit(plan: ShapePlan, number: int) -> str:
    """Name the shapes of a volume in the journal; a unit of them is one file, its x the first id in it."""
    return f"{plan.kind}-{number}"


def fragment_key(folder: str, volume: int, block: int) -> str:
    """Key of what one block of one volume has left."""
    return f"{folder}/{volume:02d}/{block // _BLOCKS_PER_FOLDER:03d}/{block % _BLOCKS_PER_FOLDER:03d}"
