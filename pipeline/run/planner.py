"""From a config and an image's metadata to a `RunPlan`, or a `PlanError` that says what does not fit.

1. the level to read, the region of interest, the three lattices      `region`
2. the classes and their rules, the outputs and their write units      `outputs`
3. the grids: predict on the working lattice, label / relabel / pyramid on the output lattice
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import RunConfig
from pipeline.errors import PlanError
from pipeline.geometry import (
    BlockGrid,
    Box,
    GroupTree,
    Spacing,
    Vector,
    covering_box,
    covering_shape,
    leaf_of,
    ratio_between,
)
from pipeline.image import GreyRange
from pipeline.run.blocks import check_block, check_ids, common_unit, fitting_core, halved_to_fit, sum_over_blocks
from pipeline.run.footprint import label_bytes, predict_bytes
from pipeline.run.outputs import class_plans, mip_factors_of, output_plans, pyramid_grids_of, result_digest
from pipeline.run.predictions import prediction_plans
from pipeline.run.region import output_offset, source_roi
from pipeline.segmenter import SegmenterDemand
from pipeline.stages.block_image import layer_slices
from pipeline.stages.plan import ClassPlan, RunPlan
from pipeline.storage import LabelVolumeSpec, VolumeInfo


def make_plan(
    config: RunConfig,
    info: VolumeInfo,
    source_nm: Spacing,
    demand: SegmenterDemand,
    grey_range: GreyRange,
    run_url: str,
) -> RunPlan:
    """Plan a run; opens nothing.

    Args:
        config: the resolved config.
        info: the image at the level that is read.
        source_nm: voxel size of that level.
        demand: what the segmenter needs.
        grey_range: the grey values that map to 0 and 1.
        run_url: the run directory.

    Raises:
        UserError: the region of interest is empty or outside.
        ConfigError: a class or a prediction that the model does not have.
        PlanError: blocks do not fit or do not nest.
    """
    working_nm = demand.working_voxel_size_nm or source_nm
    output_nm = config.plan.output_voxel_size_zyx_nm or source_nm
    if demand.is_fused and output_nm != source_nm:
        raise PlanError(f"segmenter {config.segmenter.kind!r} writes at the voxel size it reads, {source_nm} nm")
    roi = source_roi(config, info, source_nm)
    bounds = Box.of_shape(info.shape_zyx).relative_to(roi.start)
    to_working, to_output = ratio_between(source_nm, working_nm), ratio_between(source_nm, output_nm)
    output_domain = Box.of_shape(covering_shape(roi.shape, to_output))
    classes = class_plans(config, demand, output_nm)
    offset = output_offset(roi, source_nm, output_nm)
    factors = mip_factors_of(output_domain.shape, output_nm, config)
    outputs = output_plans(
        config,
        classes,
        LabelVolumeSpec(
            url="",
            shape_zyx=output_domain.shape,
            voxel_size_zyx_nm=output_nm,
            chunk_zyx=(1, 1, 1),
            factors_zyx=factors,
            offset_zyx_voxels=offset,
            origin_zyx_nm=info.origin_zyx_nm,
            run=result_digest(config, demand),
        ),
    )
    unit = common_unit([output.write_units_zyx[0] for output in outputs], "relabel")
    halo = label_halo(classes, config)
    plan = RunPlan(
        config=config,
        run_url=run_url,
        image_level=info.level,
        source_origin_zyx=roi.start,
        source_bounds=bounds,
        source_voxel_size_nm=source_nm,
        source_voxel_bytes=info.dtype.itemsize,
        source_layer_slices=layer_slices(info.chunk_zyx),
        working_voxel_size_nm=working_nm,
        output_voxel_size_nm=output_nm,
        takes_raw_grey=demand.takes_raw_grey,
        grey_range=grey_range,
        working_bounds=covering_box(bounds, to_working),
        working_domain=Box.of_shape(covering_shape(roi.shape, to_working)),
        output_domain=output_domain,
        output_offset_zyx=offset,
        predict_grid=None,
        label_grid=BlockGrid(output_domain, unit),
        label_halo_zyx=(halo, halo, halo),
        group_tree=GroupTree((1, 1, 1), (1, 1, 1)),
        relabel_grid=BlockGrid(output_domain, unit),
        mip_factors=factors,
        pyramid_grids=pyramid_grids_of(outputs),
        class_names=demand.class_names,
        classes=classes,
        outputs=outputs,
    )
    plan = _with_grids(plan, config, demand, unit)
    return replace(plan, predictions=prediction_plans(plan, demand, info.origin_zyx_nm))


def _with_grids(plan: RunPlan, config: RunConfig, demand: SegmenterDemand, unit: Vector) -> RunPlan:
    limit_bytes = int(config.plan.task_memory_gib * 2**30)
    if not demand.is_fused:
        unit_zyx = demand.unit_zyx(plan.working_domain.shape)
        core = config.plan.predict_block_zyx or fitting_core(
            plan.working_domain,
            unit_zyx,
            lambda shape: predict_bytes(plan, demand, shape),
            limit_bytes,
            "predict",
            lambda shape: _model_voxels(plan, demand, shape),
        )
        if core[0] % unit_zyx[0]:
            raise PlanError(
                f"planning predict: block {core} is no whole number of the model's z windows of {unit_zyx[0]} slices; "
                "change plan.predict_block_zyx"
            )
        plan = replace(plan, predict_grid=BlockGrid(plan.working_domain, core))
    block = config.plan.block_zyx or _label_block(plan, demand, unit, limit_bytes)
    check_block(block, unit)
    check_fits(plan, demand, block, limit_bytes)
    cell = (max(block[0], unit[0]), max(block[1], unit[1]), max(block[2], unit[2]))
    label_grid = BlockGrid(plan.output_domain, block)
    check_ids(plan.output_domain.shape, len(plan.classes), block, plan.label_halo_zyx)
    return replace(
        plan,
        label_grid=label_grid,
        group_tree=GroupTree(label_grid.shape, leaf_of(label_grid.shape, config.plan.resolve_group_blocks)),
        relabel_grid=BlockGrid(plan.output_domain, cell),
    )


def _model_voxels(plan: RunPlan, demand: SegmenterDemand, core: Vector) -> int:
    """Count what passes through the model with blocks of this shape."""
    return sum_over_blocks(
        BlockGrid(plan.working_domain, core),
        lambda block: demand.model_voxels(block, plan.working_bounds, plan.working_domain),
    )


def _label_block(plan: RunPlan, demand: SegmenterDemand, unit: Vector, limit_bytes: int) -> Vector:
    """Choose the label block: whole write units, or where one is too large (a shard), a part of it."""

    def bytes_of(core: Vector) -> int:
        return label_bytes(plan, demand, core)

    chunk = common_unit([output.spec.chunk_zyx for output in plan.outputs], "label")
    part = halved_to_fit(unit, chunk, bytes_of, limit_bytes)
    return part if part != unit else fitting_core(plan.output_domain, unit, bytes_of, limit_bytes, "label")


def check_fits(plan: RunPlan, demand: SegmenterDemand, block: Vector, limit_bytes: int) -> None:
    """Refuse blocks that need more memory than a task may use.

    Raises:
        PlanError: with the bytes needed and the bytes allowed.
    """
    needs = {"label": label_bytes(plan, demand, block)}
    if plan.predict_grid is not None:
        needs["predict"] = predict_bytes(plan, demand, plan.predict_grid.core)
    for stage, needed in needs.items():
        if needed > limit_bytes:
            raise PlanError(
                f"planning {stage}: a block needs {needed:,} bytes, a task may use {limit_bytes:,} "
                "(plan.task_memory_gib); make the block smaller or the limit larger"
            )
    on_device = 0
    if plan.predict_grid is not None:
        on_device = demand.projected_bytes(plan.predict_grid.core, plan.working_domain.shape)[1]
    device_limit = int(plan.config.plan.device_memory_gib * 2**30)
    if on_device > device_limit:
        raise PlanError(
            f"planning predict: the model needs {on_device:,} bytes of the device, plan.device_memory_gib allows "
            f"{device_limit:,}; lower segmenter.batch_tiles or raise the limit"
        )


def label_halo(classes: tuple[ClassPlan, ...], config: RunConfig) -> int:
    """Give the voxels a label block needs beyond its core, for the most demanding class."""
    needs = [1]
    for rule in classes:
        needs.append(rule.fill_holes_voxels + 1)
        if rule.kind == "instances" and rule.stitch == "iou":
            needs.append(config.plan.watershed_halo_voxels)
    return max(needs)
