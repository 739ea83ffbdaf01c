"""What a run would cost, before it costs anything: `sam4em plan`.

Counts come from the plan in closed form: blocks far from every border are alike, so one stands for all of them. Time
and money come from a few blocks that are really carried out: see `probe`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.geometry import BlockGrid, Box, source_box
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
# A model's context reaches at most this many blocks over a border; blocks further in are alike.
_BORDER_BLOCKS = 2


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


def sum_over_blocks(grid: BlockGrid, figure: Callable[[Box], int]) -> int:
    """Add up a figure over all blocks, asking once per kind of block.

    Args:
        grid: the blocks.
        figure: depends on a block's size and on its distance to the border, when that is below two blocks.
    """
    return sum(
        count_z * count_y * count_x * figure(grid.box(grid.index((z, y, x))))
        for z, count_z in _kinds(grid.shape[0])
        for y, count_y in _kinds(grid.shape[1])
        for x, count_x in _kinds(grid.shape[2])
    )


def _kinds(count: int) -> Iterator[tuple[int, int]]:
    """Yield positions along an axis and how many blocks each stands for."""
    if count <= 2 * _BORDER_BLOCKS + 1:
        yield from ((position, 1) for position in range(count))
        return
    for position in range(_BORDER_BLOCKS):
        yield position, 1
        yield count - 1 - position, 1
    yield _BORDER_BLOCKS, count - 2 * _BORDER_BLOCKS


def _model_voxels(core: Box, plan: RunPlan, demand: SegmenterDemand) -> int:
    """Count what passes through the model for a block; a fused segmenter computes the halo of labels too."""
    wanted = core.grown(plan.label_halo_zyx).intersection(plan.output_domain) if demand.is_fused else core
    return demand.model_voxels(wanted, plan.working_bounds, plan.working_domain)


def _image_bytes(core: Box, plan: RunPlan, demand: SegmenterDemand) -> int:
    around = demand.context(core, plan.working_bounds, plan.working_domain)
    return source_box(around, plan.source_to_working, plan.source_bounds).num_voxels


def _written_bytes(plan: RunPlan) -> int:
    return sum(
        _ID_BYTES * math.prod(output.spec.shape(mip)) for output in plan.outputs for mip in range(output.spec.num_mips)
    )


def _intermediate_bytes(plan: RunPlan) -> int:
    labels = _LOCAL_LABEL_BYTES * plan.output_domain.num_voxels * len(plan.classes)
    probabilities = 0 if plan.predict_grid is None else plan.working_domain.num_voxels * plan.num_channels
    return labels + probabilities
