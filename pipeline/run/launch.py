"""From a config to a finished run: prepare, describe it in a manifest, start workers, drive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from importlib import metadata
from typing import Any, Final

from pipeline.config import RunConfig
from pipeline.config.clusters import ClusterSection
from pipeline.config.schema import RESULT_SECTIONS, Sam4emSegmenter
from pipeline.errors import ConfigError
from pipeline.ledger import RunManifest
from pipeline.run.cluster.opening import check_cluster, open_cluster
from pipeline.run.cluster.settings import WorkerNeeds
from pipeline.run.completion import Executor, StageSet
from pipeline.run.dask_executor import DaskExecutor
from pipeline.run.driver import Run, drive
from pipeline.run.footprint import worker_bytes
from pipeline.run.prepare import PreparedRun, prepare_run, storage_options
from pipeline.run.run_places import RunPlaces, list_outputs
from pipeline.run.run_stages import RunStages, stage_specs
from pipeline.run.summary import RunSummary
from pipeline.stages.plan import RunPlan
from pipeline.storage import ObjectStore as RunDirectory
from pipeline.telemetry import Reporter

# Raised whenever the same config and image would give other voxels, or a run keeps other tables.
RESULT_VERSION: Final = 10
# What can change a voxel by its version.
PACKAGES: Final = (
    "sam4em",
    "numpy",
    "scipy",
    "torch",
    "connected-components-3d",
    "edt",
    "scikit-image",
    "fastremap",
)


def describe_run(prepared: PreparedRun) -> RunManifest:
    """Gather everything that decides a run's result."""
    plan = prepared.plan
    dumped = plan.config.model_dump(mode="json", include=set(RESULT_SECTIONS))
    return RunManifest(
        config=dumped,
        segmenter=asdict(prepared.demand.identity),
        image={"fingerprint": prepared.image_fingerprint, "level": plan.image_level},
        grids=_grids(plan),
        num_tasks={spec.name: spec.num_tasks for spec in stage_specs(plan)},
        grey_range=(float(plan.grey_range.low), float(plan.grey_range.high)),
        result_version=RESULT_VERSION,
        outputs=list_outputs(plan),
        packages=package_versions(),
    )


def package_versions() -> dict[str, str]:
    """Give the versions of the libraries that compute."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def open_run(prepared: PreparedRun) -> Run:
    """Put a run together: directory, manifest, stages, places."""
    plan = prepared.plan
    return Run(
        store=run_directory(plan.config, plan.run_url),
        manifest=describe_run(prepared),
        stages=RunStages(plan, prepared.demand.identity),
        places=RunPlaces(plan),
        retries=plan.config.faults.retries,
        max_failed_tasks=plan.config.faults.max_failed_tasks,
        config=plan.config.model_dump(mode="json"),
    )


def run_directory(config: RunConfig, run_url: str) -> RunDirectory:
    """Open the run directory."""
    return RunDirectory(run_url, storage_options(config.storage))


def run_config(
    config: RunConfig,
    *,
    reporter: Reporter,
    should_stop: Callable[[], bool] = lambda: False,
    restart: bool = False,
    open_executor: Callable[[PreparedRun, StageSet], AbstractContextManager[Executor]] | None = None,
) -> RunSummary:
    """Segment a volume as a config says, or go on where an earlier call stopped.

    Args:
        config: the whole run.
        reporter: shows progress.
        should_stop: asked between steps.
        restart: first delete what an earlier run has made here.
        open_executor: who computes; default: as the config's `cluster` says.

    Returns:
        See `drive`.

    Raises:
        UserError: config or plan cannot be used, or the output belongs to another run.
        WorldError: image or output cannot be reached.
        WorkError: blocks are missing after all retries, the scheduler is not there, the model does not load.
    """
    if open_executor is None:
        refuse_own_memory(config)
    prepared = prepare_run(config)
    return drive_prepared(
        prepared,
        open_run(prepared),
        reporter=reporter,
        should_stop=should_stop,
        restart=restart,
        open_executor=open_executor,
    )


def drive_prepared(
    prepared: PreparedRun,
    run: Run,
    *,
    reporter: Reporter,
    should_stop: Callable[[], bool] = lambda: False,
    restart: bool = False,
    open_executor: Callable[[PreparedRun, StageSet], AbstractContextManager[Executor]] | None = None,
) -> RunSummary:
    """Drive a run that is put together already; see `run_config`."""
    if open_executor is None:
        check_cluster(prepared.plan.config.cluster, worker_needs(prepared))
    opener = open_executor or dask_executor
    return drive(
        run,
        lambda: opener(prepared, run.stages),
        reporter=reporter,
        should_stop=should_stop,
        restart=restart,
    )


@contextmanager
def dask_executor(prepared: PreparedRun, stages: StageSet) -> Iterator[Executor]:
    """Start or reach the workers that a config asks for.

    Raises:
        ConfigError: something that the kind of cluster needs is not here.
        SchedulerUnavailable: no scheduler answers.
        WorkersUnavailable: no worker can be had.
    """
    with open_workers(prepared.plan.config.cluster, worker_needs(prepared), stages) as executor:
        yield executor


@contextmanager
def open_workers(cluster: ClusterSection, needs: WorkerNeeds, stages: StageSet) -> Iterator[Executor]:
    """Start or reach workers and bring them the stages; raises as `dask_executor`."""
    with (
        open_cluster(cluster, needs) as opened,
        DaskExecutor(
            opened.client,
            stages,
            tasks_per_worker=cluster.window_blocks_per_worker,
            offers=opened.offers,
            worker_timeout_s=opened.worker_timeout_s,
            check_health=opened.check_health,
        ) as executor,
    ):
        yield executor


def worker_needs(prepared: PreparedRun) -> WorkerNeeds:
    """Tell what every worker of a run must have."""
    segmenter = prepared.plan.config.segmenter
    return WorkerNeeds(
        memory_bytes=worker_bytes(prepared.plan, prepared.demand),
        model_threads=segmenter.threads if isinstance(segmenter, Sam4emSegmenter) else 1,
        model_wants_gpu=isinstance(segmenter, Sam4emSegmenter) and segmenter.device != "cpu",
    )


def refuse_own_memory(config: RunConfig) -> None:
    """Refuse `memory://` where other processes compute.

    Raises:
        ConfigError: an address begins with it.
    """
    urls = [config.image.url, config.image.mask_url or "", *(output.url for output in config.outputs)]
    for url in urls:
        if url.startswith("memory://"):
            raise ConfigError(
                f"running with worker processes: {url} lies in the memory of this process, where they cannot reach it; "
                "use a path or an object store"
            )


def _grids(plan: RunPlan) -> dict[str, Any]:
    grids = {"label": plan.label_grid, "relabel": plan.relabel_grid}
    if plan.predict_grid is not None:
        grids["predict"] = plan.predict_grid
    for number, grid in enumerate(plan.pyramid_grids):
        grids[f"pyramid-{number + 1}"] = grid
    return {name: {"shape": list(grid.shape), "core": list(grid.core)} for name, grid in grids.items()}
