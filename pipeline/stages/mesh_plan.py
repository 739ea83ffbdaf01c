"""The plan of the meshes of a finished run: made once by the driver, sent once to each worker.

    DIRECTORY/fragment-ids/VV/TTT/BBB    ids whose surface a block holds a part of
    DIRECTORY/fragments/VV/TTT/BBB       those parts; no object where there is none

VV is the volume, TTT are the thousands of the block's index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.config.schema import MeshSection
from pipeline.geometry import BlockGrid, Box, Spacing, Vector, ceil_div
from pipeline.storage import LabelFormat, LabelVolumeSpec

FRAGMENT_IDS: Final = "fragment-ids"
FRAGMENTS: Final = "fragments"
MESH_FOLDERS: Final = (FRAGMENT_IDS, FRAGMENTS)
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
class MeshedVolume:
    """One label volume and the meshes of its objects."""

    format: LabelFormat
    """Format of the volume."""
    spec: LabelVolumeSpec
    """The volume, as it was written."""
    url: str
    """Folder of the meshes."""
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
class MeshPlan:
    """Everything that the mesh stages must know."""

    section: MeshSection
    """What the user wants."""
    run_url: str
    """Directory of the run whose objects these are."""
    url: str
    """Own directory: manifest, journal, fragments."""
    block_zyx: Vector
    """Core of a block, voxels of the level that is meshed."""
    volumes: tuple[MeshedVolume, ...]
    """One per class."""

    @property
    def grid(self) -> BlockGrid:
        """Blocks of every volume: all have the same shape."""
        return BlockGrid(Box.of_shape(self.volumes[0].spec.shape(self.section.mip)), self.block_zyx)

    @property
    def voxel_size_zyx_nm(self) -> Spacing:
        """Voxel size of the level that is meshed."""
        return self.volumes[0].spec.voxel_size(self.section.mip)

    @property
    def max_error_nm(self) -> float:
        """How far simplification may move a surface."""
        return self.section.max_error_nm or max(self.voxel_size_zyx_nm)

    def num_shards(self, volume: MeshedVolume) -> int:
        """Give the ranges of ids of a volume: each is one file, and one task."""
        size = self.section.objects_per_shard
        return 0 if volume.num_ids == 0 else volume.last_id // size - volume.first_id // size + 1

    def blocks_of(self, box: Box) -> list[int]:
        """Give the blocks that hold a part of the surface of an object within a box of finest voxels."""
        factor = self.volumes[0].spec.factor(self.section.mip)
        start = [first // step - 1 for first, step in zip(box.start, factor, strict=True)]
        stop = [ceil_div(last, step) for last, step in zip(box.stop, factor, strict=True)]
        return list(self.grid.touched_by(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))))


def cubes_box(plan: MeshPlan, block: int) -> Box:
    """Give the voxels that a block's cubes lie between: its core, one plane above, and one below at the beginning.

    The box may reach one voxel beyond the volume: background, which closes the surfaces.
    """
    core, domain = plan.grid.box(block), plan.grid.domain
    start = [first - (first == begin) for first, begin in zip(core.start, domain.start, strict=True)]
    return Box((start[0], start[1], start[2]), (core.stop[0] + 1, core.stop[1] + 1, core.stop[2] + 1))


def fragment_key(folder: str, volume: int, block: int) -> str:
    """Key of what one block of one volume has left."""
    return f"{folder}/{volume:02d}/{block // _BLOCKS_PER_FOLDER:03d}/{block % _BLOCKS_PER_FOLDER:03d}"
