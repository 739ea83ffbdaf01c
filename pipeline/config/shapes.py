"""Schema of the sections `mesh` and `skeleton`: the shapes of objects, made of a finished run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, StrictStr, model_validator

from pipeline.config.section import NotNegative, PositiveFloat, PositiveInt, Section, Voxels


class ShapeSection(Section):
    """Which objects get a shape, and how the work is cut."""

    classes: tuple[StrictStr, ...] | None = Field(None, description="classes whose objects are wanted; default: all")
    min_size_nm3: Annotated[float, Field(ge=0)] = Field(0.0, description="smaller objects are left out, in nm^3")
    ids: tuple[PositiveInt, ...] | None = Field(None, description="the only objects that are wanted; default: all")
    mip: Annotated[StrictInt, Field(ge=0, le=15)] = Field(0, description="pyramid level that is read; 0: full")
    block_zyx: Voxels | None = Field(
        None, description="core of a block in voxels of the level; default: whole write units of about 256"
    )
    objects_per_shard: Annotated[StrictInt, Field(ge=1, le=2**20)] = Field(
        1024, description="ids in a row that share a file and a task, a power of two"
    )

    @model_validator(mode="after")
    def _values_are_usable(self) -> ShapeSection:
        if self.objects_per_shard & (self.objects_per_shard - 1):
            raise ValueError(f"objects_per_shard {self.objects_per_shard} must be a power of two, such as 1024")
        return self


class MeshSection(ShapeSection):
    """Meshes of the objects, made once the run is complete."""

    format: Literal["multiresolution", "legacy"] = Field(
        "multiresolution", description="levels of detail in shards, or two files per object"
    )
    max_error_nm: PositiveFloat | None = Field(
        None, description="how far simplification may move a surface; default: the longest side of a voxel"
    )
    levels: Annotated[StrictInt, Field(ge=1, le=8)] = Field(
        4, description="levels of detail at most, each with a quarter of the triangles of the one before"
    )


class SkeletonSection(ShapeSection):
    """Skeletons of the objects, made once the run is complete; needs `pip install "sam4em[skeleton]"`."""

    format: Literal["sharded", "files"] = Field("sharded", description="shards, or one file per object")
    scale: PositiveFloat = Field(
        1.0, description="TEASAR: a path covers what lies within this many times the object's radius there"
    )
    const_nm: NotNegative = Field(100.0, description="TEASAR: and so far beyond, in nm; more gives fewer branches")
    tick_nm: NotNegative = Field(0.0, description="shorter branches are removed, in nm; 0: none")
    dust_nm: NotNegative = Field(0.0, description="shorter pieces that nothing joins are removed, in nm; 0: none")
