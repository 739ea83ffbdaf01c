"""mesh: one block of one label volume -> the parts of its objects' surfaces that lie in it, simplified.

Tasks are numbered volume by volume.
"""

from __future__ import annotations

import numpy as np

from pipeline.geometry import Box
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.surfaces import cut_fragments
from pipeline.stages.mesh_context import MeshContext
from pipeline.stages.mesh_plan import FRAGMENT_IDS, FRAGMENTS, MeshPlan, cubes_box, fragment_key
from pipeline.stages.report import Outcome, Stopwatch, TaskReport
from pipeline.storage import LabelVolumeWriter, pack_table

NAME = "mesh"


def tasks(plan: MeshPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(len(plan.volumes) * len(plan.grid))


def run(index: int, plan: MeshPlan, context: MeshContext) -> TaskReport:
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
        if len(fragments.ids):
            packed = pack_table(fragments._asdict(), compress=True)
            context.objects.put(fragment_key(FRAGMENTS, number, block), packed)
        # Last, and of every block: who joins fragments must know whether one is missing.
        context.objects.put(fragment_key(FRAGMENT_IDS, number, block), pack_table({"ids": fragments.ids}))
    counters = {"voxels": plan.grid.box(block).num_voxels, "triangles": len(fragments.triangles)}
    outcome: Outcome = "written" if len(fragments.ids) else "empty"
    return TaskReport(NAME, index, outcome, seconds=watch.seconds, counters=counters)


def read_padded(volume: LabelVolumeWriter, mip: int, box: Box) -> SegmentArray:
    """Read a box of which one plane may lie beyond the volume on each side; there is background."""
    inside = box.intersection(Box.of_shape(volume.spec.shape(mip)))
    ids_zyx = volume.read(mip, inside)
    if inside == box:
        return ids_zyx
    padded_zyx = np.zeros(box.shape, np.uint64)
    padded_zyx[inside.relative_to(box.start).slices] = ids_zyx
    return padded_zyx
