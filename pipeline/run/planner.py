"""From a config and an image's metadata to a `RunPlan`, or a `PlanError` that says what does not fit.

1. the level to read, the region of interest, the three lattices
2. the classes and their rules
3. the outputs and their write units
4. the grids: predict on the working lattice, label / relabel / pyramid on the output lattice
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from pipeline.config import RunConfig
from pipeline.config.read import digest_of
from pipeline.config.schema import InstanceRule, OutputSection
from pipeline.errors import ConfigError, PlanError, UserError
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
from pipeline.run.blocks import (
    check_block,
    check_ids,
    common_unit,
    fitting_core,
    mip_factor,
    num_mips_of,
)
from pipeline.run.footprint import label_bytes, predict_bytes
from pipeline.run.predictions import prediction_plans
from pipeline.segmenter import SegmenterDemand
from pipeline.stages.plan import UINT8_ONE, ClassPlan, OutputPlan, RunPlan
from pipeline.storage import LabelVolumeSpec, VolumeInfo, label_writer

# Small pyramid cells would make tasks of a few milliseconds; whole write units up to this extent share one.
_PYRAMID_CELL_VOXELS = 256


def nearest_level(info: VolumeInfo, working_nm: Spacing | None) -> int:
    """Choose the pyramid level whose voxel size is nearest to the model's, as a ratio.

    Args:
        info: the image, with the sizes of all its levels.
        working_nm: the model's voxel size; None: level 0.
    """
    if working_nm is None:
        return 0

    def distance(level: int) -> float:
        size = info.levels[level].voxel_size_zyx_nm
        if size is None:
            return math.inf if level else 0.0
        return sum(abs(math.log(a / b)) for a, b in zip(size, working_nm, strict=True))

    return min(range(len(info.levels)), key=distance)


def parse_roi(text: str | None, shape_zyx: Vector) -> Box:
    """Read `z0:z1,y0:y1,x0:x1` in voxels of the full volume.

    Raises:
        UserError: the region is empty or reaches outside the volume.
    """
    whole = Box.of_shape(shape_zyx)
    if text is None:
        return whole
    try:
        ranges = [tuple(int(part) for part in axis.split(":")) for axis in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = ranges
    except ValueError as error:
        raise UserError(f"region {text!r}: expected z0:z1,y0:y1,x0:x1 in voxels") from error
    if z1 <= z0 or y1 <= y0 or x1 <= x0:
        raise UserError(f"region {text} holds no voxel; every stop must be above its start")
    roi = Box((z0, y0, x0), (z1, y1, x1))
    if not whole.contains(roi):
        raise UserError(f"region {text} reaches outside the volume, which is {whole}")
    return roi


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
    roi = _source_roi(config, info, source_nm)
    bounds = Box.of_shape(info.shape_zyx).relative_to(roi.start)
    to_working, to_output = ratio_between(source_nm, working_nm), ratio_between(source_nm, output_nm)
    output_domain = Box.of_shape(covering_shape(roi.shape, to_output))
    classes = class_plans(config, demand, output_nm)
    offset = _output_offset(roi, source_nm, output_nm)
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
            plan.working_domain, unit_zyx, lambda shape: predict_bytes(plan, demand, shape), limit_bytes, "predict"
        )
        if core[0] % unit_zyx[0]:
            raise PlanError(
                f"planning predict: block {core} is no whole number of the model's z windows of {unit_zyx[0]} slices; "
                "change plan.predict_block_zyx"
            )
        plan = replace(plan, predict_grid=BlockGrid(plan.working_domain, core))
    block = config.plan.block_zyx or fitting_core(
        plan.output_domain, unit, lambda shape: label_bytes(plan, demand, shape), limit_bytes, "label"
    )
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


def _source_roi(config: RunConfig, info: VolumeInfo, source_nm: Spacing) -> Box:
    finest = info.levels[0]
    roi = parse_roi(config.image.roi, finest.shape_zyx)
    if info.level == 0:
        return roi
    shrink = [round(full / part) for full, part in zip(finest.shape_zyx, info.shape_zyx, strict=True)]
    if finest.voxel_size_zyx_nm is not None:
        shrink = [round(a / b) for a, b in zip(source_nm, finest.voxel_size_zyx_nm, strict=True)]
    scale = (float(shrink[0]), float(shrink[1]), float(shrink[2]))
    return covering_box(roi, scale).intersection(Box.of_shape(info.shape_zyx))


def _output_offset(roi: Box, source_nm: Spacing, output_nm: Spacing) -> Vector:
    offset = [start * a / b for start, a, b in zip(roi.start, source_nm, output_nm, strict=True)]
    if any(abs(value - round(value)) > 1e-6 for value in offset):
        raise PlanError(
            f"region of interest starts at {roi.start} voxels of {source_nm} nm, which is no whole number of output "
            f"voxels of {output_nm} nm; move the region or change plan.output_voxel_size_zyx_nm"
        )
    return (round(offset[0]), round(offset[1]), round(offset[2]))


def class_plans(config: RunConfig, demand: SegmenterDemand, output_nm: Spacing) -> tuple[ClassPlan, ...]:
    """Give the rules of a config's classes in voxels and stored probabilities.

    Raises:
        ConfigError: a class that the model does not have.
    """
    rules = config.classes or {name: InstanceRule() for name in demand.class_names}
    unknown = sorted(set(rules) - set(demand.class_names))
    if unknown:
        raise ConfigError(
            f"classes: the model has no class {', '.join(unknown)}; it has {', '.join(demand.class_names)}"
        )
    voxel_nm3 = math.prod(output_nm)
    return tuple(_class_plan(name, rule, demand, voxel_nm3) for name, rule in rules.items())


def result_digest(config: RunConfig, demand: SegmenterDemand) -> str:
    """Digest of config and model, as 64 hex digits."""
    identity = demand.identity
    text = " ".join((digest_of(config), identity.name, identity.weights_sha256, identity.config_digest))
    return hashlib.sha256(text.encode()).hexdigest()


def _class_plan(name: str, rule: InstanceRule, demand: SegmenterDemand, voxel_nm3: float) -> ClassPlan:
    channel = demand.class_names.index(name)
    floods_sdf = rule.watershed_on == "sdf"
    if floods_sdf and demand.sdf_tau_nm is None:
        raise ConfigError(
            f"classes.{name}.watershed_on: sdf needs a model that predicts signed distances (memory: sdf); "
            f"{demand.identity.name!r} does not: use watershed_on: mask"
        )
    threshold = demand.thresholds[channel] if rule.threshold is None else rule.threshold
    seed = rule.seed_threshold
    return ClassPlan(
        name=name,
        channel=channel,
        kind=rule.kind,
        method=rule.method,
        threshold=max(1, math.ceil(threshold * UINT8_ONE)),
        seed_threshold=None if seed is None else max(1, math.ceil(seed * UINT8_ONE)),
        fill_holes_voxels=rule.fill_holes_voxels,
        min_size_voxels=math.ceil(rule.min_size_nm3 / voxel_nm3),
        stitch=rule.stitch_rule,
        min_iou=rule.min_iou,
        seed_spacing_nm=rule.seed_spacing_nm,
        sdf_channel=len(demand.class_names) + channel if floods_sdf else None,
        sdf_tau_nm=demand.sdf_tau_nm or 0.0,
    )


def output_plans(config: RunConfig, classes: tuple[ClassPlan, ...], common: LabelVolumeSpec) -> tuple[OutputPlan, ...]:
    """Give one volume per output and class.

    Args:
        config: the outputs.
        classes: the classes.
        common: what all of them share.

    Raises:
        PlanError: a shard is no multiple of its chunk.
    """
    outputs = []
    for section in config.outputs:
        _check_shard(section)
        for index, rule in enumerate(classes):
            url = section.url.rstrip("/")
            spec = replace(
                common,
                url=url if len(classes) == 1 else f"{url}/{rule.name}",
                chunk_zyx=section.chunk_zyx,
                shard_zyx=section.shard_zyx,
                class_name=rule.name,
            )
            writer = label_writer(section.format, spec)
            units = tuple(writer.write_unit_zyx(mip) for mip in range(spec.num_mips))
            outputs.append(OutputPlan(section.format, index, spec, units, section.num_segment_properties))
    return tuple(outputs)


def _check_shard(section: OutputSection) -> None:
    shard = section.shard_zyx
    if shard and any(whole % part for whole, part in zip(shard, section.chunk_zyx, strict=True)):
        raise PlanError(f"output {section.url}: shard {shard} is no multiple of chunk {section.chunk_zyx} voxels")


def mip_factors_of(shape: Vector, voxel_size_nm: Spacing, config: RunConfig) -> tuple[Vector, ...]:
    """Give the down-sampling from each level to the next.

    Raises:
        PlanError: outputs ask for different numbers of levels.
    """
    counts = [section.num_mips or num_mips_of(shape, section.chunk_zyx) for section in config.outputs]
    if len(set(counts)) > 1:
        raise PlanError(f"outputs ask for {counts} pyramid levels; they share one pyramid: set the same num_mips")
    size, factors = voxel_size_nm, []
    for _ in range(counts[0] - 1):
        factor = mip_factor(size)
        factors.append(factor)
        size = (size[0] * factor[0], size[1] * factor[1], size[2] * factor[2])
    return tuple(factors)


def pyramid_grids_of(outputs: tuple[OutputPlan, ...]) -> tuple[BlockGrid, ...]:
    """Give the tasks of each level above the full one: whole write units of every output.

    Raises:
        PlanError: write units do not nest.
    """
    grids = []
    for mip in range(1, outputs[0].spec.num_mips):
        unit = common_unit([output.write_units_zyx[mip] for output in outputs], f"pyramid level {mip}")
        cell = [extent * max(1, _PYRAMID_CELL_VOXELS // extent) for extent in unit]
        grids.append(BlockGrid(Box.of_shape(outputs[0].spec.shape(mip)), (cell[0], cell[1], cell[2])))
    return tuple(grids)


def run_url_of(config: RunConfig) -> str:
    """Give the run directory of a config."""
    return run_url_for(config.outputs[0].url)


def run_url_for(output: str) -> str:
    """Give the run directory of a first output: beside it, and never inside a zarr group.

    `em.zarr/labels/mito` has `em.zarr.labels.mito.run`.
    """
    parts = output.rstrip("/").split("/")
    group = next((number for number, part in enumerate(parts[:-1]) if part.endswith(".zarr")), len(parts) - 1)
    return "/".join((*parts[:group], ".".join(parts[group:]))) + ".run"
