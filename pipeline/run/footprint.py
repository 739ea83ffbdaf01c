"""Projected memory of a task, in bytes, before anything runs.

The constants were measured on runs of `tests/bench/busy.py`; a summary compares measured peaks with these figures.
"""

from __future__ import annotations

import math

from pipeline.geometry import BlockGrid, Box, Vector, source_box
from pipeline.image import SLAB_SLICES
from pipeline.segmenter import SegmenterDemand
from pipeline.stages.plan import RunPlan

# Resident size of a worker before its first task: Python, numpy, zarr, cloud-volume, dask; torch with what its
# allocator keeps where a model runs. Source: measured, workers of both kinds with small blocks.
PLAIN_BASE_BYTES = 300 * 2**20
MODEL_BASE_BYTES = 900 * 2**20

# Per voxel of a label block and its halo: the stored probability, its mask, cc3d's labels (uint32) and table of
# provisional labels (uint32), the dense labels and one temporary of the relabelling.
_COMPONENT_BYTES = 18
# Watershed adds the distance map (float32), markers and labels (int32), and skimage's queue.
_WATERSHED_BYTES = 46
# A watershed on predicted distances: the distance of the whole region (float32) and two temporaries of making it.
_SDF_BYTES = 12
# Per voxel of a relabel cell: ids (uint64), local labels, one encoded copy.
RELABEL_BYTES = 28
# Interpolating probabilities to the output lattice: float32, its bytes, and the temporaries of a slab in thin blocks.
_RESAMPLE_BYTES = 10


def predict_bytes(plan: RunPlan, demand: SegmenterDemand, core: Vector) -> int:
    """Project the host bytes of one predict task.

    Args:
        plan: lattices and bounds.
        demand: the segmenter's own projection.
        core: core shape in working voxels.
    """
    core = clipped(core, plan.working_domain.shape)
    grid = BlockGrid(plan.working_domain, core)
    middle = grid.index((grid.shape[0] // 2, grid.shape[1] // 2, grid.shape[2] // 2))
    first, inner = ((grid.box(index), plan.working_bounds, plan.working_domain) for index in (0, middle))
    read = max(demand.reads(*first), demand.reads(*inner), key=lambda box: box.num_voxels)
    handed_on = SLAB_SLICES if demand.coarse is None else demand.coarse(*inner).slab_slices
    ratio = plan.source_to_working
    source = source_box(read, ratio, read.grown((1 << 20, 1 << 20, 1 << 20)))
    plane = source.shape[1] * source.shape[2]
    # Of the source a layer of chunks with the slab before it, twice where they are put together, and of a few slices
    # float32 with three temporaries; of as many slices as the model is handed what resampling gives, twice.
    held = min(source.shape[0], plan.source_layer_slices + math.ceil(handed_on * ratio[0]) + 1)
    slab = min(source.shape[0], math.ceil(SLAB_SLICES * ratio[0]) + 1)
    image_bytes = plane * (2 * held * plan.source_voxel_bytes + slab * 12)
    image_bytes += min(read.shape[0], handed_on) * read.shape[1] * read.shape[2] * 8
    host, _ = demand.projected_bytes(core, plan.working_domain.shape)
    return image_bytes + host + plan.num_channels * math.prod(core)


def label_bytes(plan: RunPlan, demand: SegmenterDemand, core: Vector) -> int:
    """Project the host bytes of one label task.

    Args:
        plan: halo, lattices, classes.
        demand: the segmenter, where the label stage calls it itself.
        core: core shape in output voxels.
    """
    core = clipped(core, plan.output_domain.shape)
    region = Box.of_shape(core).grown(plan.label_halo_zyx)
    voxels = region.num_voxels
    per_voxel = plan.num_channels + (
        _WATERSHED_BYTES if any(rule.method == "watershed" for rule in plan.classes) else _COMPONENT_BYTES
    )
    if any(rule.sdf_channel is not None for rule in plan.classes):
        per_voxel += _SDF_BYTES
    if plan.working_to_output != (1.0, 1.0, 1.0):
        per_voxel += _RESAMPLE_BYTES
    fused = demand.projected_bytes(region.shape, region.shape)[0] if demand.is_fused else 0
    return voxels * per_voxel + fused


def worker_bytes(plan: RunPlan, demand: SegmenterDemand) -> int:
    """Project the largest resident memory of one worker process.

    Every thread may hold a task without a model; the model is held by one. What the model's activations took stays with
    the process afterwards: workers keep freed memory of small pieces (see `pipeline.run.cluster`).
    """
    threads = plan.config.cluster.threads_per_worker
    without_model = max(label_bytes(plan, demand, plan.label_grid.core), relabel_bytes(plan))
    if plan.predict_grid is None:
        return PLAIN_BASE_BYTES + threads * without_model
    predict = predict_bytes(plan, demand, plan.predict_grid.core)
    kept = demand.projected_bytes(plan.predict_grid.core, plan.working_domain.shape)[1]
    beside = (threads - 1) * without_model
    return MODEL_BASE_BYTES + beside + max(predict, kept + without_model)


def relabel_bytes(plan: RunPlan) -> int:
    """Project the host bytes of one relabel task."""
    return RELABEL_BYTES * math.prod(clipped(plan.relabel_grid.core, plan.output_domain.shape))


def clipped(core: Vector, domain_shape: Vector) -> Vector:
    """Give the part of a core that a block can fill: a core may be larger than the volume."""
    return (min(core[0], domain_shape[0]), min(core[1], domain_shape[1]), min(core[2], domain_shape[2]))
