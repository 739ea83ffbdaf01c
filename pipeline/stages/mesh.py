"""mesh: one block of one label volume -> the parts of its objects' surfaces that lie in it, simplified.

Tasks are numbered volume by volume.
"""

from __future__ import annotations

from pipeline.geometry import Box
from pipeline.labels.surfaces import cut_fragments
from pipeline.stages.report import Outcome, Stopwatch, TaskReport
from pipeline.stages.shape_blocks import put_fragments, read_padded
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_plan import MeshPlan

NAME = MeshPlan.kind


def tasks(plan: MeshPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(plan.num_block_tasks())


def run(index: int, plan: MeshPlan, context: ShapeContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the plan of the meshes.
        context: where things are.

    Raises:
        WorldError: a store failed.
    """
    number, block = divmod(index, len(plan.grid))
    box, watch = cubes_box(plan, block), Stopwatch()
    with watch.phase("read"):
        ids_zyx = read_padded(context.volumes[number], plan.section.mip, box)
    with watch.phase("compute"):
        fragments = cut_fragments(ids_zyx, box.start, plan.voxel_size_zyx_nm, plan.max_error_nm, context.chosen)
    with watch.phase("write"):
        put_fragments(number, block, fragments, context)
    counters = {"voxels": plan.grid.box(block).num_voxels, "triangles": len(fragments.triangles)}
    outcome: Outcome = "written" if len(fragments.ids) else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters=counters)


def cubes_box(plan: MeshPlan, block: int) -> Box:
    """Give the voxels that a block's cubes lie between: its core, one plane above, and one below at the beginning.

    The box may reach one voxel beyond the volume: background, which closes the surfaces.
    """
    core, domain = plan.grid.box(block), plan.grid.domain
    start = [first - (first == begin) for first, begin in zip(core.start, domain.start, strict=True)]
    return Box((start[0], start[1], start[2]), (core.stop[0] + 1, core.stop[1] + 1, core.stop[2] + 1))
