"""What tells meshes from skeletons, for the run that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, Final

from pipeline.config.shapes import MeshSection, ShapeSection, SkeletonSection
from pipeline.labels.skeletons import load_kimimaro
from pipeline.stages import mesh, mesh_join, skeleton, skeleton_join
from pipeline.stages.shape_plan import MeshPlan, ShapedVolume, ShapePlan, SkeletonPlan
from pipeline.storage.locations import MESH_FOLDER, SKELETON_FOLDER
from pipeline.storage.meshes import mesh_info
from pipeline.storage.skeletons import skeleton_info

MESH_VERSION: Final = 2
"""Raised whenever the same objects would get other meshes, or other records."""
SKELETON_VERSION: Final = 1
"""Raised whenever the same objects would get other skeletons, or other records."""


@dataclass(frozen=True)
class ShapeRecipe:
    """One kind of shapes."""

    section: type[ShapeSection]
    """Section of the config; it has the name of the plan's kind."""
    plan: type[ShapePlan]
    """What the stages follow."""
    stages: tuple[ModuleType, ModuleType]
    """Blocks, then ranges of ids."""
    info: Callable[[Any, int, int], dict[str, Any]]
    """Describes a folder: format, largest id, objects per shard."""
    folder: str
    """See `pipeline.storage.locations.SHAPE_FOLDERS`."""
    version: int
    """See `MESH_VERSION`."""
    bytes_per_voxel: int
    """Memory of a task per voxel of its block."""
    require: Callable[[], object]
    """Raises ConfigError where something that is needed is not installed."""


RECIPES: Final = MappingProxyType(
    {
        MeshPlan.kind: ShapeRecipe(
            section=MeshSection,
            plan=MeshPlan,
            stages=(mesh, mesh_join),
            info=mesh_info,
            folder=MESH_FOLDER,
            version=MESH_VERSION,
            # Ids as read and as kept (uint64 each), their dense numbers (uint32, int32), a crop of each object; the
            # rest is for surfaces, which a few objects per block do not fill.
            bytes_per_voxel=40,
            require=lambda: None,
        ),
        SkeletonPlan.kind: ShapeRecipe(
            section=SkeletonSection,
            plan=SkeletonPlan,
            stages=(skeleton, skeleton_join),
            info=skeleton_info,
            folder=SKELETON_FOLDER,
            version=SKELETON_VERSION,
            # Ids (uint64), and 31 bytes measured (kimimaro 5.8.5) in a block that one object fills; half as much again.
            bytes_per_voxel=60,
            require=load_kimimaro,
        ),
    }
)
"""By the plan's kind."""


def recipe_of(plan: ShapePlan) -> ShapeRecipe:
    """Give the recipe that a plan follows."""
    return RECIPES[plan.kind]


def folder_info(volume: ShapedVolume, plan: ShapePlan) -> dict[str, Any]:
    """Describe the folder of a volume's shapes."""
    section: Any = plan.section
    return recipe_of(plan).info(section.format, volume.last_id, section.objects_per_shard)
