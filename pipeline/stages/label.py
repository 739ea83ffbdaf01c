"""label: one block of the output lattice, with its halo -> labels local to the block.

+-----------------+
|      halo       |   1. probabilities of core and halo, from scratch or from a fused segmenter
|   +---------+   |   2. per class: objects of core and halo, numbered so that those in the core are 1..n
|   |  core   |   |   3. labels of the core -> scratch
|   +---------+   |   4. slabs around the faces -> objects, for the neighbors' match
+-----------------+   5. measures of the core's labels -> object
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PlanError
from pipeline.geometry import Box, source_box
from pipeline.image import resample
from pipeline.labels.arrays import LabelArray, ProbabilityArray
from pipeline.labels.instances import segment_components, threshold_mask
from pipeline.labels.luts import compact_core, mark_foreign, take_labels
from pipeline.labels.splits import inside_distance, segment_watershed
from pipeline.labels.statistics import LabelTable, measure_labels
from pipeline.stages.context import TaskContext
from pipeline.stages.grey import is_masked_out, predict_box
from pipeline.stages.intermediates import read_intermediate
from pipeline.stages.layout import (
    blank_key,
    column,
    face_box,
    face_key,
    labels_name,
    max_labels_per_block,
    require_predict_grid,
    slab_reach,
    statistics_key,
)
from pipeline.stages.plan import ClassPlan, RunPlan
from pipeline.stages.predict import NAME as PREDICT
from pipeline.stages.report import Stopwatch, TaskReport, WrittenUnit, outcome_of, written_units
from pipeline.storage import pack_table

NAME = "label"

Columns = dict[str, NDArray[Any]]
Side = tuple[int, int]
"""Axis, and 0 for the side below or 1 for the one above."""


def tasks(plan: RunPlan) -> range:
    """Give the indices of the stage's tasks: blocks of `plan.label_grid`."""
    return range(len(plan.label_grid))


def run(index: int, plan: RunPlan, context: TaskContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: of a block of `plan.label_grid`.
        plan: the run's plan.
        context: where things are.

    Raises:
        WorldError: a store failed.
    """
    core = plan.label_grid.box(index)
    region = core.grown(plan.label_halo_zyx).intersection(plan.output_domain)
    watch, counters = Stopwatch(), {"voxels": core.num_voxels, "labels": 0}
    channels = _probabilities(core, region, plan, context, watch, counters)
    faces: dict[Side, Columns] = {side: {} for side in sides_with_neighbor(plan, index)}
    statistics: Columns = {}
    units: list[WrittenUnit] = []
    for number, rule in enumerate(plan.classes):
        with watch.phase("compute"):
            core_zyx, table, slabs = _label_class(channels, rule, index, core, region, plan)
            statistics |= {column(number, name): values for name, values in table._asdict().items()}
            for side, slab_zyx in slabs.items():
                faces[side][column(number, "labels")] = shrink(slab_zyx)
                faces[side][column(number, "foreign")] = np.array([len(table.voxels) + 1], np.uint64)
        if channels is not None:
            with watch.phase("write"):
                units += written_units(labels_name(rule), context.labels[number].write(core, core_zyx))
        _check_count(len(table.voxels), index, plan)
        counters["labels"] += len(table.voxels)
    with watch.phase("write"):
        for (axis, side_of_axis), columns in faces.items():
            if columns:
                context.objects.put(face_key(index, axis, side_of_axis), pack_table(columns, compress=True))
        context.objects.put(statistics_key(index), pack_table(statistics))
    return TaskReport(
        NAME, index, outcome_of(units), scratch_units=tuple(units), seconds=watch.seconds, counters=counters
    )


def _check_count(num_labels: int, index: int, plan: RunPlan) -> None:
    """Refuse more labels than resolve can take together, here where it costs one block and not a run.

    Raises:
        PlanError: with the numbers.
    """
    most = max_labels_per_block(plan)
    if num_labels > most:
        raise PlanError(
            f"labelling block {index}: it has {num_labels:,} labels, groups of {plan.config.plan.resolve_group_blocks} "
            f"blocks take at most {most:,} of each; lower plan.resolve_group_blocks, or raise the class's threshold"
        )


def sides_with_neighbor(plan: RunPlan, index: int) -> list[Side]:
    """List the sides of a block where another block lies."""
    position, shape = plan.label_grid.position(index), plan.label_grid.shape
    below = [(axis, 0) for axis in range(3) if position[axis] > 0]
    above = [(axis, 1) for axis in range(3) if position[axis] + 1 < shape[axis]]
    return sorted(below + above)


def shrink(labels_zyx: LabelArray) -> NDArray[Any]:
    """Store labels in the smallest unsigned type that holds them; a slab of background has no voxel at all."""
    largest = int(labels_zyx.max(initial=0))
    if largest == 0:
        return np.zeros((0, 0, 0), np.uint8)
    return labels_zyx.astype(np.min_scalar_type(largest))


def _probabilities(
    core: Box, region: Box, plan: RunPlan, context: TaskContext, watch: Stopwatch, counters: dict[str, int]
) -> dict[int, ProbabilityArray] | None:
    """Give the probabilities of a region on the output lattice by channel; None where all are background."""
    channels = {rule.channel for rule in plan.classes}
    channels |= {rule.sdf_channel for rule in plan.classes if rule.sdf_channel is not None}
    if plan.predict_grid is None:
        if is_masked_out(core, plan.output_voxel_size_nm, plan, context):
            counters["blocks_outside_mask"] = 1
            return None
        prediction = predict_box(region, plan, context, watch)
        if prediction is None:
            counters["blocks_of_one_grey"] = 1
            return None
        counters["model_voxels"] = context.demand.model_voxels(region, plan.working_bounds, plan.working_domain)
        return {channel: prediction.probability_czyx[channel] for channel in channels}
    source = source_box(region, plan.working_to_output, plan.working_domain)
    with watch.phase("read"):
        stored_czyx = read_intermediate(
            context.probabilities,
            source,
            PREDICT,
            plan.predict_grid,
            lambda chunk: _is_blank(chunk, plan, context),
        )
    if not stored_czyx[: len(plan.class_names)].any():
        return None
    with watch.phase("compute"):
        return {channel: _to_output(stored_czyx[channel], source, region, plan) for channel in channels}


def _is_blank(chunk: Box, plan: RunPlan, context: TaskContext) -> bool:
    """Whether the predict stage left a chunk out: its block lies outside the mask, or has one grey value."""
    grid = require_predict_grid(plan)
    (block,) = grid.touched_by(chunk)
    masked = is_masked_out(grid.box(block), plan.working_voxel_size_nm, plan, context)
    return masked or context.objects.exists(blank_key(block))


def _to_output(stored_zyx: ProbabilityArray, source: Box, region: Box, plan: RunPlan) -> ProbabilityArray:
    """Interpolate stored probabilities onto the output lattice."""
    if source == region and plan.working_to_output == (1.0, 1.0, 1.0):
        return stored_zyx
    values_zyx = resample(stored_zyx, source, region, plan.working_to_output, plan.working_domain)
    return np.rint(values_zyx, out=values_zyx).astype(np.uint8)


def _label_class(
    channels: dict[int, ProbabilityArray] | None,
    rule: ClassPlan,
    index: int,
    core: Box,
    region: Box,
    plan: RunPlan,
) -> tuple[LabelArray, LabelTable, dict[Side, LabelArray]]:
    """Label one class.

    Returns:
        Labels of the core, dense from 1; their measures; labels of the slabs, where those that live in the halo
        alone share one label, the next after the core's: they belong to the neighbor, and no edge names them.
    """
    sides = sides_with_neighbor(plan, index) if rule.kind == "instances" else []
    if channels is None:
        nothing_zyx = np.zeros(core.shape, np.uint32)
        table = measure_labels(nothing_zyx, nothing_zyx.astype(np.uint8), core.start)
        return nothing_zyx, table, {side: np.zeros((0, 0, 0), np.uint32) for side in sides}
    inner = core.relative_to(region.start).slices
    probability_zyx = channels[rule.channel]
    sdf_zyx = None if rule.sdf_channel is None else channels[rule.sdf_channel]
    labels_zyx = _segment(probability_zyx, sdf_zyx, rule, plan)
    lut = compact_core(labels_zyx, inner)
    core_zyx = take_labels(lut, labels_zyx[inner])
    seed = rule.seed_threshold if rule.kind == "instances" else None
    table = measure_labels(core_zyx, np.ascontiguousarray(probability_zyx[inner]), core.start, seed)
    slab_lut = mark_foreign(lut)
    slabs: dict[Side, LabelArray] = {}
    for axis, side in sides:
        slab = face_box(plan.label_grid, index, axis, side, slab_reach(plan, rule, axis))
        slabs[axis, side] = take_labels(slab_lut, labels_zyx[slab.relative_to(region.start).slices])
    return core_zyx, table, slabs


def _segment(
    probability_zyx: ProbabilityArray, sdf_zyx: ProbabilityArray | None, rule: ClassPlan, plan: RunPlan
) -> LabelArray:
    """Part the probabilities of core and halo into objects, or mark them where the class is semantic."""
    if rule.kind == "semantic":
        return threshold_mask(probability_zyx, rule.threshold, rule.fill_holes_voxels).astype(np.uint32)
    if rule.method == "watershed":
        return segment_watershed(
            probability_zyx,
            rule.threshold,
            plan.output_voxel_size_nm,
            rule.seed_spacing_nm,
            rule.fill_holes_voxels,
            None if sdf_zyx is None else inside_distance(sdf_zyx, rule.sdf_tau_nm),
            rule.valley_fraction,
        )
    return segment_components(probability_zyx, rule.threshold, rule.fill_holes_voxels)
