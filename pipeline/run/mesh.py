"""`sam4em mesh`: meshes of the objects of a finished run.

1. the run is complete                              else ConfigError
2. which volumes, which ids, in which blocks        from its manifest and tables: neither image nor model is needed
3. a run of its own below the run directory: mesh (blocks), mesh-join (ranges of ids), with manifest and journal
4. the volumes say that they have meshes; the fragments are removed

The run is only read, except for the word `mesh` in the `info` of its precomputed volumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final

from pipeline.config import RunConfig
from pipeline.config.schema import MeshSection, StorageSection
from pipeline.errors import ConfigError, ManifestMismatch, PlanError, VolumeNotFound
from pipeline.geometry import Vector
from pipeline.ledger import RunManifest, read_document, read_manifest, read_state
from pipeline.run.cluster.opening import check_cluster
from pipeline.run.cluster.settings import WorkerNeeds
from pipeline.run.completion import Executor, TaskResult
from pipeline.run.driver import Run, drive
from pipeline.run.footprint import PLAIN_BASE_BYTES
from pipeline.run.launch import open_workers
from pipeline.run.mesh_places import MeshPlaces
from pipeline.run.prepare import storage_options
from pipeline.run.run_places import OUTPUT_KIND, spec_from
from pipeline.run.run_stages import translate
from pipeline.run.stream import StageSpec, Task
from pipeline.run.summary import RunSummary
from pipeline.stages import mesh, mesh_join
from pipeline.stages.layout import IDS_KEY, MESH_RUN_FOLDER, SEGMENTS_KEY
from pipeline.stages.mesh_context import MeshContext, list_row_groups
from pipeline.stages.mesh_plan import MeshedVolume, MeshPlan
from pipeline.storage import ObjectStore, StorageOptions, label_writer
from pipeline.storage.locations import mesh_url
from pipeline.storage.meshes import mesh_info, write_mesh_info
from pipeline.telemetry import Reporter

MESH_VERSION: Final = 2
"""Raised whenever the same objects would get other meshes, or other records."""
_MESH_KIND: Final = "mesh"
_BLOCK_VOXELS: Final = 256
# Per voxel of a block: ids as read and as kept (uint64 each), their dense numbers (uint32, int32), a crop of each
# object; the rest is for surfaces, which a few objects per block do not fill.
_BYTES_PER_VOXEL: Final = 40
STAGES: Final = {module.NAME: module for module in (mesh, mesh_join)}


@dataclass(frozen=True)
class MeshStages:
    """The stages as the driver wants them."""

    plan: MeshPlan
    """What they follow."""
    storage: StorageSection
    """How stores are reached."""

    def specs(self) -> Sequence[StageSpec]:
        """See `StageSet.specs`."""
        return [
            StageSpec(mesh.NAME, len(mesh.tasks(self.plan))),
            StageSpec(mesh_join.NAME, len(mesh_join.tasks(self.plan)), after=(mesh.NAME,)),
        ]

    def create(self) -> None:
        """See `StageSet.create`."""
        section, options = self.plan.section, storage_options(self.storage)
        for volume in self.plan.volumes:
            info = mesh_info(section.format, volume.last_id, section.objects_per_shard)
            write_mesh_info(volume.url, info, options)

    def open(self) -> MeshRoom:
        """See `StageSet.open`."""
        return MeshRoom(self)


class MeshRoom:
    """The stages on one worker."""

    def __init__(self, stages: MeshStages) -> None:
        self._plan = stages.plan
        self._context = MeshContext(stages.plan, storage_options(stages.storage))

    def run(self, task: Task) -> TaskResult:
        """See `StageRoom.run`."""
        return translate(STAGES[task.stage].run(task.index, self._plan, self._context))

    def close(self) -> None:
        """Nothing to let go of."""


def mesh_run(
    config: RunConfig,
    run_url: str,
    section: MeshSection,
    *,
    reporter: Reporter,
    should_stop: Callable[[], bool] = lambda: False,
    restart: bool = False,
    open_executor: Callable[[RunConfig, MeshStages], AbstractContextManager[Executor]] | None = None,
) -> tuple[RunSummary, list[str]]:
    """Make the meshes of a finished run, or go on with them.

    Args:
        config: of the run; its `cluster`, `faults` and `storage` say how.
        run_url: directory of the run.
        section: what is wanted.
        reporter: shows progress.
        should_stop: asked between steps.
        restart: first delete what an earlier call has made.
        open_executor: who computes; default: as the config's `cluster` says.

    Returns:
        What it cost, and the folders of meshes.

    Raises:
        ConfigError: the run is not complete, or has no such class, id or level.
        ManifestMismatch: meshes were begun with other settings.
        TaskFailed: tasks failed for good.
    """
    plan, run = open_meshes(config, run_url, section)
    if open_executor is None:
        check_cluster(config.cluster, mesh_needs(config, plan))
    opener = open_executor or mesh_workers
    stages = MeshStages(plan, config.storage)
    try:
        summary = drive(
            run, lambda: opener(config, stages), reporter=reporter, should_stop=should_stop, restart=restart
        )
    except ManifestMismatch as error:
        raise ManifestMismatch(f"making meshes of {run_url}: {error} (of the meshes alone)") from error
    if summary.status in ("complete", "already complete"):
        run.places.mark(complete=True)
        run.places.delete_intermediates()
    return summary, [volume.url for volume in plan.volumes]


def open_meshes(config: RunConfig, run_url: str, section: MeshSection) -> tuple[MeshPlan, Run]:
    """Plan the meshes of a run and open their directory; raises as `plan_meshes`."""
    plan, base = plan_meshes(run_url, section, storage_options(config.storage))
    return plan, _open(plan, base, config)


def mesh_workers(config: RunConfig, stages: MeshStages) -> AbstractContextManager[Executor]:
    """Start or reach the workers that a config asks for; see `launch.open_workers`."""
    return open_workers(config.cluster, mesh_needs(config, stages.plan), stages)


def mesh_needs(config: RunConfig, plan: MeshPlan) -> WorkerNeeds:
    """Tell what a worker must have."""
    per_task = _BYTES_PER_VOXEL * math.prod(length + 2 for length in plan.block_zyx)
    return WorkerNeeds(memory_bytes=PLAIN_BASE_BYTES + config.cluster.threads_per_worker * per_task)


def plan_meshes(run_url: str, section: MeshSection, options: StorageOptions) -> tuple[MeshPlan, RunManifest]:
    """Plan the meshes of a run; gives its manifest too.

    Raises:
        VolumeNotFound: there is no run.
        ConfigError: it is not complete, or has no such class, id or level.
        PlanError: blocks are larger than memory allows.
    """
    store = ObjectStore(run_url, options)
    manifest = read_manifest(store)
    if manifest is None:
        raise VolumeNotFound(f"making meshes of {run_url}: no run has begun there")
    if not read_state(store).complete:
        raise ConfigError(f"making meshes of {run_url}: the run is not complete; give its own command again first")
    ranges = read_document(store, IDS_KEY) or {}
    rows = tuple(list_row_groups(store, _table_keys(manifest)))
    volumes = [
        MeshedVolume(
            format=output["format"],
            spec=spec_from(output["spec"]),
            url=mesh_url(output["url"], output["format"]),
            first_id=int(ranges[name]["first_id"]),
            num_ids=int(ranges[name]["num_ids"]),
            rows=rows,
        )
        for name, output in _volumes_of(manifest, section).items()
    ]
    plan = MeshPlan(section, run_url, f"{run_url}/{MESH_RUN_FOLDER}", (1, 1, 1), tuple(volumes))
    _check_ids(plan)
    return replace(plan, block_zyx=_block(plan, options)), manifest


def _volumes_of(manifest: RunManifest, section: MeshSection) -> dict[str, dict[str, Any]]:
    """Choose one volume per class: a precomputed one where there is one, since meshes are part of that format."""
    outputs = [output for output in manifest.outputs if output["kind"] == OUTPUT_KIND]
    outputs.sort(key=lambda output: output["format"] != "precomputed")
    by_class: dict[str, dict[str, Any]] = {}
    for output in outputs:
        by_class.setdefault(output["spec"]["class_name"], output)
    unknown = sorted(set(section.classes or ()) - set(by_class))
    if unknown:
        raise ConfigError(f"making meshes: the run has no class {unknown[0]!r}; it has {', '.join(sorted(by_class))}")
    return {name: output for name, output in by_class.items() if section.classes is None or name in section.classes}


def _check_ids(plan: MeshPlan) -> None:
    volumes = plan.volumes
    num_mips = volumes[0].spec.num_mips
    if plan.section.mip >= num_mips:
        raise ConfigError(
            f"making meshes: mip {plan.section.mip} does not exist; the run has levels 0 to {num_mips - 1}"
        )
    for number in plan.section.ids or ():
        if not any(volume.first_id <= number <= volume.last_id for volume in volumes):
            known = ", ".join(f"{volume.first_id} to {volume.last_id}" for volume in volumes if volume.num_ids)
            raise ConfigError(f"making meshes: there is no object {number}; the ids are {known or 'none at all'}")


def _table_keys(manifest: RunManifest) -> Iterator[str]:
    """Name the parts of the instance table: one per group of blocks, or the table itself where there is one."""
    # Each group is solved and dealt by a task of its own, the root by one for both.
    num_nodes = (manifest.num_tasks["resolve"] + 1) // 2
    if num_nodes == 1:
        yield SEGMENTS_KEY
        return
    for node in range(num_nodes):
        yield f"{SEGMENTS_KEY}/{node:07d}.parquet"


def _block(plan: MeshPlan, options: StorageOptions) -> Vector:
    """Choose the core of a block: as the user says, else whole write units."""
    if plan.section.block_zyx is not None:
        if math.prod(plan.section.block_zyx) > 2**30:
            raise PlanError(f"mesh.block_zyx {plan.section.block_zyx}: a block may hold 2^30 voxels at most")
        return plan.section.block_zyx
    volume = plan.volumes[0]
    unit = label_writer(volume.format, volume.spec, options).write_unit_zyx(plan.section.mip)
    z, y, x = (extent * max(1, _BLOCK_VOXELS // extent) for extent in unit)
    return (z, y, x)


def _open(plan: MeshPlan, base: RunManifest, config: RunConfig) -> Run:
    options = storage_options(config.storage)
    stages = MeshStages(plan, config.storage)
    grid = {"shape": list(plan.grid.shape), "core": list(plan.block_zyx)}
    manifest = RunManifest(
        config={"mesh": plan.section.model_dump(mode="json")},
        segmenter={},
        image={"run": base.digest},
        grids={"mesh": grid},
        num_tasks={spec.name: spec.num_tasks for spec in stages.specs()},
        grey_range=None,
        result_version=MESH_VERSION,
        outputs=tuple({"kind": _MESH_KIND, "url": volume.url} for volume in plan.volumes),
    )
    return Run(
        store=ObjectStore(plan.url, options),
        manifest=manifest,
        stages=stages,
        places=MeshPlaces(plan, options),
        retries=config.faults.retries,
        max_failed_tasks=config.faults.max_failed_tasks,
        config=config.model_dump(mode="json"),
    )
