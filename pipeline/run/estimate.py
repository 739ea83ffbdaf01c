"""What a run would cost, before it costs anything: `sam4em plan`.

Counts come from the plan in closed form: blocks far from every border are alike, so one stands for all of them. Time
and money come from a few blocks that are really carried out: see `probe`.
"""

from __future__ import annotations

import math
from typing import Any

from pipeline.geometry import BlockGrid, Box, source_box
from pipeline.run.blocks import sum_over_blocks
from pipeline.run.footprint import worker_bytes
from pipeline.run.prepare import PreparedRun, storage_options
from pipeline.segmenter import SegmenterDemand
from pipeline.stages import layout
from pipeline.stages.plan import RunPlan
from pipeline.storage import label_writer

# Six faces, the measures, the map, and three edge tables.
_TABLES_PER_BLOCK = 11
_ID_BYTES = 8
_LOCAL_LABEL_BYTES = 4


def count_figures(prepared: PreparedRun) -> dict[str, Any]:
    """Count blocks, tasks, bytes and files of a run; reads nothing.

    Args:
        prepared: the plan and the segmenter's demand.

    Returns:
        Named counts; bytes are uncompressed upper bounds.
    """
    plan, demand = prepared.plan, prepared.demand
    num_label = len(plan.label_grid)
    num_predict = len(plan.predict_grid) if plan.predict_grid is not None else 0
    tasks = {
        "predict": num_predict,
        "label": num_label,
        "match": 3 * num_label,
        "resolve": 2 * plan.group_tree.num_nodes - 1,
        "audit": len(plan.group_tree.level(0)),
        "relabel": len(plan.relabel_grid),
        "pyramid": sum(len(grid) for grid in plan.pyramid_grids),
    }
    model_grid = plan.predict_grid or plan.label_grid
    model_voxels = sum_over_blocks(model_grid, lambda core: _model_voxels(core, plan, demand))
    return {
        "output_shape_zyx": list(plan.output_domain.shape),
        "blocks": num_label,
        "label_block_zyx": list(plan.label_grid.core),
        "predict_block_zyx": None if plan.predict_grid is None else list(plan.predict_grid.core),
        "tasks": tasks,
        "model_voxels_per_core_voxel": model_voxels / model_grid.domain.num_voxels,
        "bytes_read": sum_over_blocks(model_grid, lambda core: _image_bytes(core, plan, demand)),
        "bytes_written": _written_bytes(plan),
        "bytes_of_intermediates_at_peak": _intermediate_bytes(plan),
        "worker_host_bytes": worker_bytes(plan, demand),
        "worker_device_bytes": demand.projected_bytes(model_grid.core, model_grid.domain.shape)[1],
    }


def count_files(plan: RunPlan) -> dict[str, int]:
    """Count the files of outputs and of intermediates, at most."""
    options = storage_options(plan.config.storage)
    writers = [label_writer(output.format, output.spec, options) for output in plan.outputs]
    written = sum(writer.num_files(mip) for writer in writers for mip in range(writer.spec.num_mips))
    specs = [layout.labels_spec(plan, rule) for rule in plan.classes]
    if plan.predict_grid is not None:
        specs.append(layout.probabilities_spec(plan))
    units = sum(len(BlockGrid(Box.of_shape(spec.shape_zyx), spec.unit_zyx)) for spec in specs)
    return {
        "files_written": written,
        "files_of_intermediates": units + _TABLES_PER_BLOCK * len(plan.label_grid),
    }


def _model_voxels(core: Box, plan: RunPlan, demand: SegmenterDemand) -> int:
    """Count what passes through the model for a block; a fused segmenter computes the halo of labels too."""
    wanted = core.grown(plan.label_halo_zyx).intersection(plan.output_domain) if demand.is_fused else core
    return demand.model_voxels(wanted, plan.working_bounds, plan.working_domain)


def _image_bytes(core: Box, plan: RunPlan, demand: SegmenterDemand) -> int:
    around = demand.reads(core, plan.working_bounds, plan.working_domain)
    return source_box(around, plan.source_to_working, plan.source_bounds).num_voxels


def _written_bytes(plan: RunPlan) -> int:
    return sum(
        _ID_BYTES * math.prod(output.spec.shape(mip)) for output in plan.outputs for mip in range(output.spec.num_mips)
    )


def _intermediate_bytes(plan: RunPlan) -> int:
    labels = _LOCAL_LABEL_BYTES * plan.output_domain.num_voxels * len(plan.classes)
    probabilities = 0 if plan.predict_grid is None else plan.working_domain.num_voxels * plan.num_channels
    return labels + probabilities
