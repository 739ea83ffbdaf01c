"""From a finished run to the plan of its meshes or skeletons: which volumes, which ids, in which blocks.

Its manifest and tables say so; neither image nor model is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from pipeline.config.shapes import ShapeSection
from pipeline.errors import ConfigError, PlanError, VolumeNotFound
from pipeline.geometry import Vector
from pipeline.ledger import RunManifest, read_document, read_manifest, read_state
from pipeline.run.run_places import OUTPUT_KIND, spec_from
from pipeline.run.shape_recipes import ShapeRecipe
from pipeline.stages.layout import IDS_KEY, SEGMENTS_KEY
from pipeline.stages.shape_context import list_row_groups
from pipeline.stages.shape_plan import ShapedVolume, ShapePlan
from pipeline.storage import ObjectStore, StorageOptions, label_writer
from pipeline.storage.locations import shape_url

_BLOCK_VOXELS: Final = 256


def plan_shapes(
    recipe: ShapeRecipe, run_url: str, section: ShapeSection, options: StorageOptions
) -> tuple[ShapePlan, RunManifest]:
    """Plan the shapes of a run's objects; gives its manifest too.

    Raises:
        VolumeNotFound: there is no run.
        ConfigError: it is not complete, or has no such class, id or level.
        PlanError: blocks are larger than memory allows.
    """
    made, store = recipe.plan.made, ObjectStore(run_url, options)
    manifest = read_manifest(store)
    if manifest is None:
        raise VolumeNotFound(f"making {made} of {run_url}: no run has begun there")
    if not read_state(store).complete:
        raise ConfigError(f"making {made} of {run_url}: the run is not complete; give its own command again first")
    ranges = read_document(store, IDS_KEY) or {}
    rows = tuple(list_row_groups(store, _table_keys(manifest)))
    volumes = [
        ShapedVolume(
            format=output["format"],
            spec=spec_from(output["spec"]),
            url=shape_url(output["url"], output["format"], recipe.folder),
            first_id=int(ranges[name]["first_id"]),
            num_ids=int(ranges[name]["num_ids"]),
            rows=rows,
        )
        for name, output in _volumes_of(manifest, section, made).items()
    ]
    plan = recipe.plan(section, run_url, f"{run_url}/{recipe.plan.kind}", (1, 1, 1), tuple(volumes))
    _check_ids(plan)
    return replace(plan, block_zyx=_block(plan, options)), manifest


def _volumes_of(manifest: RunManifest, section: ShapeSection, made: str) -> dict[str, dict[str, Any]]:
    """Choose one volume per class: a precomputed one where there is one, since shapes are part of that format."""
    outputs = [output for output in manifest.outputs if output["kind"] == OUTPUT_KIND]
    outputs.sort(key=lambda output: output["format"] != "precomputed")
    by_class: dict[str, dict[str, Any]] = {}
    for output in outputs:
        by_class.setdefault(output["spec"]["class_name"], output)
    unknown = sorted(set(section.classes or ()) - set(by_class))
    if unknown:
        raise ConfigError(f"making {made}: the run has no class {unknown[0]!r}; it has {', '.join(sorted(by_class))}")
    return {name: output for name, output in by_class.items() if section.classes is None or name in section.classes}


def _check_ids(plan: ShapePlan) -> None:
    volumes = plan.volumes
    num_mips = volumes[0].spec.num_mips
    if plan.section.mip >= num_mips:
        raise ConfigError(
            f"making {plan.made}: mip {plan.section.mip} does not exist; the run has levels 0 to {num_mips - 1}"
        )
    for number in plan.section.ids or ():
        if not any(volume.first_id <= number <= volume.last_id for volume in volumes):
            known = ", ".join(f"{volume.first_id} to {volume.last_id}" for volume in volumes if volume.num_ids)
            raise ConfigError(f"making {plan.made}: there is no object {number}; the ids are {known or 'none at all'}")


def _table_keys(manifest: RunManifest) -> Iterator[str]:
    """Name the parts of the instance table: one per group of blocks, or the table itself where there is one."""
    # Each group is solved and dealt by a task of its own, the root by one for both.
    num_nodes = (manifest.num_tasks["resolve"] + 1) // 2
    if num_nodes == 1:
        yield SEGMENTS_KEY
        return
    for node in range(num_nodes):
        yield f"{SEGMENTS_KEY}/{node:07d}.parquet"


def _block(plan: ShapePlan, options: StorageOptions) -> Vector:
    """Choose the core of a block: as the user says, else whole write units."""
    if plan.section.block_zyx is not None:
        if math.prod(plan.section.block_zyx) > 2**30:
            raise PlanError(f"{plan.kind}.block_zyx {plan.section.block_zyx}: a block may hold 2^30 voxels at most")
        return plan.section.block_zyx
    volume = plan.volumes[0]
    unit = label_writer(volume.format, volume.spec, options).write_unit_zyx(plan.section.mip)
    z, y, x = (extent * max(1, _BLOCK_VOXELS // extent) for extent in unit)
    return (z, y, x)
