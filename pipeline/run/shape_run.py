"""`sam4em mesh`, `sam4em skeleton`: meshes or skeletons of the objects of a finished run.

1. the run is complete                              else ConfigError
2. which volumes, which ids, in which blocks        see `shape_planning`
3. a run of its own below the run directory: KIND (blocks), KIND-join (ranges of ids), with manifest and journal
4. the volumes say that they have them; the fragments are removed

The run is only read, except for the words `mesh` and `skeletons` in the `info` of its precomputed volumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pipeline.config import RunConfig
from pipeline.config.schema import StorageSection
from pipeline.config.shapes import ShapeSection
from pipeline.errors import ManifestMismatch
from pipeline.ledger import RunManifest
from pipeline.run.cluster.opening import check_cluster
from pipeline.run.cluster.settings import WorkerNeeds
from pipeline.run.completion import Executor, TaskResult
from pipeline.run.driver import Run, drive
from pipeline.run.footprint import PLAIN_BASE_BYTES
from pipeline.run.launch import open_workers
from pipeline.run.prepare import storage_options
from pipeline.run.run_stages import translate
from pipeline.run.shape_places import ShapePlaces
from pipeline.run.shape_planning import plan_shapes
from pipeline.run.shape_recipes import ShapeRecipe, folder_info, recipe_of
from pipeline.run.stream import StageSpec, Task
from pipeline.run.summary import RunSummary
from pipeline.stages.shape_context import ShapeContext
from pipeline.stages.shape_plan import ShapePlan
from pipeline.storage import ObjectStore
from pipeline.storage.shapes import write_shape_info
from pipeline.telemetry import Reporter


@dataclass(frozen=True)
class ShapeStages:
    """The stages as the driver wants them."""

    plan: ShapePlan
    """What they follow."""
    storage: StorageSection
    """How stores are reached."""

    def specs(self) -> Sequence[StageSpec]:
        """See `StageSet.specs`."""
        blocks, joins = recipe_of(self.plan).stages
        return [
            StageSpec(blocks.NAME, len(blocks.tasks(self.plan))),
            StageSpec(joins.NAME, len(joins.tasks(self.plan)), after=(blocks.NAME,)),
        ]

    def create(self) -> None:
        """See `StageSet.create`."""
        for volume in self.plan.volumes:
            write_shape_info(volume.url, folder_info(volume, self.plan), storage_options(self.storage))

    def open(self) -> ShapeRoom:
        """See `StageSet.open`."""
        return ShapeRoom(self)


class ShapeRoom:
    """The stages on one worker."""

    def __init__(self, stages: ShapeStages) -> None:
        self._plan = stages.plan
        self._context = ShapeContext(stages.plan, storage_options(stages.storage))
        self._modules = {module.NAME: module for module in recipe_of(stages.plan).stages}

    def run(self, task: Task) -> TaskResult:
        """See `StageRoom.run`."""
        return translate(self._modules[task.stage].run(task.index, self._plan, self._context))

    def close(self) -> None:
        """Nothing to let go of."""


def shape_run(
    recipe: ShapeRecipe,
    config: RunConfig,
    run_url: str,
    section: ShapeSection,
    *,
    reporter: Reporter,
    should_stop: Callable[[], bool] = lambda: False,
    restart: bool = False,
    open_executor: Callable[[RunConfig, ShapeStages], AbstractContextManager[Executor]] | None = None,
) -> tuple[RunSummary, list[str]]:
    """Make the shapes of a finished run's objects, or go on with them.

    Args:
        recipe: which kind.
        config: of the run; its `cluster`, `faults` and `storage` say how.
        run_url: directory of the run.
        section: what is wanted.
        reporter: shows progress.
        should_stop: asked between steps.
        restart: first delete what an earlier call has made.
        open_executor: who computes; default: as the config's `cluster` says.

    Returns:
        What it cost, and the folders of shapes.

    Raises:
        ConfigError: the run is not complete, or has no such class, id or level; a package is not installed.
        ManifestMismatch: they were begun with other settings.
        TaskFailed: tasks failed for good.
    """
    recipe.require()
    plan, run = open_shapes(recipe, config, run_url, section)
    if open_executor is None:
        check_cluster(config.cluster, shape_needs(config, plan))
    opener = open_executor or shape_workers
    stages = ShapeStages(plan, config.storage)
    try:
        summary = drive(
            run, lambda: opener(config, stages), reporter=reporter, should_stop=should_stop, restart=restart
        )
    except ManifestMismatch as error:
        raise ManifestMismatch(f"making {plan.made} of {run_url}: {error} (of the {plan.made} alone)") from error
    if summary.status in ("complete", "already complete"):
        run.places.mark(complete=True)
        run.places.delete_intermediates()
    return summary, [volume.url for volume in plan.volumes]


def open_shapes(recipe: ShapeRecipe, config: RunConfig, run_url: str, section: ShapeSection) -> tuple[ShapePlan, Run]:
    """Plan the shapes of a run's objects and open their directory; raises as `plan_shapes`."""
    plan, base = plan_shapes(recipe, run_url, section, storage_options(config.storage))
    return plan, _open(plan, base, config)


def shape_workers(config: RunConfig, stages: ShapeStages) -> AbstractContextManager[Executor]:
    """Start or reach the workers that a config asks for; see `launch.open_workers`."""
    return open_workers(config.cluster, shape_needs(config, stages.plan), stages)


def shape_needs(config: RunConfig, plan: ShapePlan) -> WorkerNeeds:
    """Tell what a worker must have."""
    per_task = recipe_of(plan).bytes_per_voxel * math.prod(length + 2 for length in plan.block_zyx)
    return WorkerNeeds(memory_bytes=PLAIN_BASE_BYTES + config.cluster.threads_per_worker * per_task)


def _open(plan: ShapePlan, base: RunManifest, config: RunConfig) -> Run:
    options = storage_options(config.storage)
    stages = ShapeStages(plan, config.storage)
    grid = {"shape": list(plan.grid.shape), "core": list(plan.block_zyx)}
    manifest = RunManifest(
        config={plan.kind: plan.section.model_dump(mode="json")},
        segmenter={},
        image={"run": base.digest},
        grids={plan.kind: grid},
        num_tasks={spec.name: spec.num_tasks for spec in stages.specs()},
        grey_range=None,
        result_version=recipe_of(plan).version,
        outputs=tuple({"kind": plan.kind, "url": volume.url} for volume in plan.volumes),
    )
    return Run(
        store=ObjectStore(plan.url, options),
        manifest=manifest,
        stages=stages,
        places=ShapePlaces(plan, options),
        retries=config.faults.retries,
        max_failed_tasks=config.faults.max_failed_tasks,
        config=config.model_dump(mode="json"),
    )
