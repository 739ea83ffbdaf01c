"""What a run writes: one volume per output and class, with its pyramid, and a run directory beside the first."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace

from pipeline.config import RunConfig
from pipeline.config.read import digest_of
from pipeline.config.schema import InstanceRule, OutputSection
from pipeline.errors import ConfigError, PlanError
from pipeline.geometry import BlockGrid, Box, Spacing, Vector, nests
from pipeline.run.blocks import common_unit, mip_factor, num_mips_of
from pipeline.run.footprint import RELABEL_BYTES
from pipeline.segmenter import SegmenterDemand
from pipeline.stages.plan import UINT8_ONE, ClassPlan, OutputPlan
from pipeline.storage import LabelVolumeSpec, label_writer

# A volume of more chunks is sharded unless its config says how. Source: users with 4 to 17 million chunks on NFS ask
# for shards (cloud-volume#505, #545).
_MAX_LOOSE_CHUNKS = 100_000
# Small pyramid cells would make tasks of a few milliseconds; whole write units up to this extent share one.
_PYRAMID_CELL_VOXELS = 256


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
        valley_fraction=rule.valley_fraction,
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
        shard = section.shard_zyx or _default_shard(section, common.shape_zyx, config)
        for index, rule in enumerate(classes):
            spec = replace(
                common,
                url=class_url(section.url, rule.name, len(classes)),
                chunk_zyx=section.chunk_zyx,
                shard_zyx=shard,
                class_name=rule.name,
            )
            writer = label_writer(section.format, spec)
            units = tuple(writer.write_unit_zyx(mip) for mip in range(spec.num_mips))
            outputs.append(OutputPlan(section.format, index, spec, units, section.num_segment_properties))
    return tuple(outputs)


def class_url(url: str, class_name: str, num_classes: int) -> str:
    """Address of the volume of one class: the output itself, or a folder in it where there are several classes."""
    return url.rstrip("/") if num_classes == 1 else f"{url.rstrip('/')}/{class_name}"


def _check_shard(section: OutputSection) -> None:
    shard = section.shard_zyx
    if shard and any(whole % part for whole, part in zip(shard, section.chunk_zyx, strict=True)):
        raise PlanError(f"output {section.url}: shard {shard} is no multiple of chunk {section.chunk_zyx} voxels")


def _default_shard(section: OutputSection, shape_zyx: Vector, config: RunConfig) -> Vector | None:
    """Give the largest shard that a task can write and that nests with the blocks; None where chunks may lie loose."""
    if len(BlockGrid(Box.of_shape(shape_zyx), section.chunk_zyx)) <= _MAX_LOOSE_CHUNKS:
        return None
    # cloud-volume takes a second to import: only for volumes that need it.
    from pipeline.storage.precomputed_labels import attainable_shards  # noqa: PLC0415

    block = config.plan.block_zyx
    limit_bytes = config.plan.task_memory_gib * 2**30
    fitting = [
        shard
        for shard in attainable_shards(shape_zyx, section.chunk_zyx)
        if RELABEL_BYTES * math.prod(shard) <= limit_bytes and (block is None or nests(block, shard))
    ]
    return fitting[-1] if len(fitting) > 1 else None


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
