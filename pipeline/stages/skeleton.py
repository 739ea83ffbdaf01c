"""skeleton: one block of one label volume -> the parts of its objects' skeletons that lie in it.

Tasks are numbered volume by volume.
"""

from __future__ import annotations

from pipeline.geometry import Box
from pipeline.labels.skeletons import cut_skeletons
from pipeline.stages.report import Outcome, Stopwatch, TaskReport
from pipeline.stages.shape_blocks import put_fragments
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_plan import SkeletonPlan

NAME = SkeletonPlan.kind


def tasks(plan: SkeletonPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(plan.num_block_tasks())


def run(index: int, plan: SkeletonPlan, context: ShapeContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the plan of the skeletons.
        context: where things are.

    Raises:
        ConfigError: kimimaro is not installed on this worker.
        WorldError: a store failed.
    """
    number, block = divmod(index, len(plan.grid))
    box, watch, section = shared_box(plan, block), Stopwatch(), plan.section
    with watch.phase("read"):
        ids_zyx = context.volumes[number].read(section.mip, box)
    with watch.phase("compute"):
        fragments = cut_skeletons(
            ids_zyx, box.start, plan.voxel_size_zyx_nm, section.scale, section.const_nm, context.chosen
        )
    with watch.phase("write"):
        put_fragments(number, block, fragments, context)
    counters = {"voxels": plan.grid.box(block).num_voxels, "vertices": len(fragments.vertices)}
    outcome: Outcome = "written" if len(fragments.ids) else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters=counters)


def shared_box(plan: SkeletonPlan, block: int) -> Box:
    """Give a block's core and the planes that it shares with its upper neighbors, where the volume has them."""
    core = plan.grid.box(block)
    shared = Box(core.start, (core.stop[0] + 1, core.stop[1] + 1, core.stop[2] + 1))
    return shared.intersection(plan.grid.domain)
