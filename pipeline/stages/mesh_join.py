"""mesh-join: one range of ids of one label volume -> their meshes, in one shard or as legacy files.

1. the fragments of the objects that are wanted
2. joined; coarser levels; encoded and written
"""

from __future__ import annotations

from typing import Final

from pipeline.labels.surfaces import Fragments, Surface, coarser, join_fragments
from pipeline.stages.report import Stopwatch, TaskReport, WrittenUnit
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_joins import gather_fragments, in_nm, wanted_objects, written_units
from pipeline.stages.shape_plan import MeshPlan, ShapedVolume
from pipeline.storage.meshes import Mesh, encode_levels, mesh_info, mesh_of, write_legacy_mesh, write_meshes

NAME = f"{MeshPlan.kind}-join"
# A level has a quarter of the triangles of the one below it, and no object needs one with fewer than these.
_LEVEL_RATIO: Final = 4
_FEWEST_TRIANGLES: Final = 300


def tasks(plan: MeshPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(plan.num_join_tasks())


def run(index: int, plan: MeshPlan, context: ShapeContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the plan of the meshes.
        context: where things are.

    Raises:
        IntermediateLost: what a block has left is gone.
        WorldError: a store failed.
    """
    number, shard = plan.locate_shard(index)
    volume, watch = plan.volumes[number], Stopwatch()
    with watch.phase("read"):
        rows = wanted_objects(number, shard, plan, context)
        pieces = gather_fragments(number, rows, plan, context, Fragments)
    counters = {"objects": len(pieces), "without_surface": rows.num_rows - len(pieces), "triangles": 0}
    levels: dict[int, list[Mesh]] = {}
    with watch.phase("compute"):
        for segment, fragments in pieces.items():
            surface = join_fragments(fragments)
            counters["triangles"] += len(surface.triangles)
            levels[segment] = make_levels(surface, volume, plan)
    units: tuple[WrittenUnit, ...] = ()
    with watch.phase("write"):
        if levels:
            units = written_units(number, plan, _write(volume, levels, plan, context))
    return TaskReport(NAME, index, "written" if levels else "empty", units, seconds=watch.seconds, counters=counters)


def make_levels(surface: Surface, volume: ShapedVolume, plan: MeshPlan) -> list[Mesh]:
    """Give an object in levels of detail, finest first, in nm.

    A small object has fewer levels than the user allows: it is never far enough away to need them.
    """
    surfaces = [surface]
    wanted = plan.section.levels if plan.section.format == "multiresolution" else 1
    while len(surfaces) < wanted:
        num_triangles = len(surfaces[-1].triangles) // _LEVEL_RATIO
        if num_triangles < _FEWEST_TRIANGLES:
            break
        surfaces.append(coarser(surfaces[-1], plan.voxel_size_zyx_nm, num_triangles))
    return [mesh_of(in_nm(level.vertices_zyx, volume, plan), level.triangles) for level in surfaces]


def _write(
    volume: ShapedVolume, levels: dict[int, list[Mesh]], plan: MeshPlan, context: ShapeContext
) -> list[tuple[int, bytes]]:
    """Write the meshes of a range; gives the first id in each file and its bytes."""
    section = plan.section
    if section.format == "legacy":
        return [
            (segment, write_legacy_mesh(volume.url, segment, meshes[0], context.options))
            for segment, meshes in levels.items()
        ]
    size_nm = max(plan.voxel_size_zyx_nm)
    encoded = {segment: encode_levels(segment, meshes, size_nm) for segment, meshes in levels.items()}
    info = mesh_info(section.format, volume.last_id, section.objects_per_shard)
    return [(min(levels), write_meshes(volume.url, info, encoded, context.options))]
