"""skeleton-join: one range of ids of one label volume -> their skeletons, in one shard or one file each.

1. the fragments of the objects that are wanted
2. joined to trees; encoded and written
"""

from __future__ import annotations

from pipeline.labels.skeletons import SkeletonFragments, join_skeletons, total_length_nm
from pipeline.stages.report import Stopwatch, TaskReport, WrittenUnit
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_joins import gather_fragments, in_nm, wanted_objects, written_units
from pipeline.stages.shape_plan import ShapedVolume, SkeletonPlan
from pipeline.storage.shapes import write_object, write_shard
from pipeline.storage.skeletons import encode_skeleton, skeleton_info

NAME = f"{SkeletonPlan.kind}-join"


def tasks(plan: SkeletonPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(plan.num_join_tasks())


def run(index: int, plan: SkeletonPlan, context: ShapeContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the plan of the skeletons.
        context: where things are.

    Raises:
        ConfigError: kimimaro is not installed on this worker.
        IntermediateLost: what a block has left is gone.
        WorldError: a store failed.
    """
    number, shard = plan.locate_shard(index)
    volume, watch, section = plan.volumes[number], Stopwatch(), plan.section
    with watch.phase("read"):
        rows = wanted_objects(number, shard, plan, context)
        pieces = gather_fragments(number, rows, plan, context, SkeletonFragments)
    encoded: dict[int, bytes] = {}
    length_nm = 0.0
    with watch.phase("compute"):
        for segment, fragments in pieces.items():
            skeleton = join_skeletons(
                fragments,
                plan.voxel_size_zyx_nm,
                tick_nm=section.tick_nm,
                dust_nm=section.dust_nm,
            )
            if len(skeleton.edges):
                places_nm = in_nm(skeleton.vertices_zyx, volume, plan)
                encoded[segment] = encode_skeleton(places_nm, skeleton.edges, skeleton.radii_nm)
                length_nm += total_length_nm(skeleton, plan.voxel_size_zyx_nm)
    counters = {
        "objects": len(encoded),
        "without_skeleton": rows.num_rows - len(encoded),
        "length_nm": round(length_nm),
    }
    units: tuple[WrittenUnit, ...] = ()
    with watch.phase("write"):
        if encoded:
            units = written_units(number, plan, _write(volume, encoded, plan, context))
    return TaskReport(NAME, index, "written" if encoded else "empty", units, seconds=watch.seconds, counters=counters)


def _write(
    volume: ShapedVolume, encoded: dict[int, bytes], plan: SkeletonPlan, context: ShapeContext
) -> list[tuple[int, bytes]]:
    """Write the skeletons of a range; gives the first id in each file and its bytes."""
    section = plan.section
    if section.format == "files":
        return [
            (segment, write_object(volume.url, segment, data, context.options)) for segment, data in encoded.items()
        ]
    info = skeleton_info(section.format, volume.last_id, section.objects_per_shard)
    return [(min(encoded), write_shard(volume.url, info, encoded, context.options))]
