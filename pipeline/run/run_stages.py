"""The real stages as the loop wants them: what each task needs, and how a worker carries it out.

predict <- nothing
label   <- the predict blocks that its core and halo read
match   <- two neighboring label blocks
resolve <- all of label and match; then the tasks of its own tree
audit   <- resolve
relabel <- resolve
pyramid <- the cells of the level below that a cell is made from
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Final

from pipeline.errors import WeightsError
from pipeline.geometry import source_box
from pipeline.ledger import UnitSum
from pipeline.run.completion import TaskResult
from pipeline.run.prepare import storage_options
from pipeline.run.stream import CPU_LANE, DEVICE_LANE, StageSpec, Task
from pipeline.segmenter import SegmenterIdentity, describe_segmenter, load_segmenter
from pipeline.stages import audit, label, match, predict, pyramid, relabel, resolve
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import require_predict_grid
from pipeline.stages.plan import RunPlan
from pipeline.stages.report import TaskReport

STAGES: Final = (predict, label, match, resolve, audit, relabel, pyramid)
# A run that stitches another run's labels again begins here.
RESTITCH_STAGES: Final = (resolve, audit, relabel, pyramid)
# A face takes milliseconds, about what sending a task costs.
_MATCH_GROUP: Final = 4


def label_needs(plan: RunPlan, index: int) -> Iterator[Task]:
    """Yield the predict blocks that a label block reads."""
    if plan.predict_grid is None:
        return
    region = plan.label_grid.box(index).grown(plan.label_halo_zyx).intersection(plan.output_domain)
    source = source_box(region, plan.working_to_output, plan.working_domain)
    for block in require_predict_grid(plan).touched_by(source):
        yield Task(predict.NAME, block)


def match_needs(plan: RunPlan, index: int) -> Iterator[Task]:
    """Yield the two label blocks at a face; none where a block is the last one of its axis."""
    block, axis = divmod(index, match.NUM_AXES)
    neighbor = plan.label_grid.upper_neighbor(block, axis)
    if neighbor is not None:
        yield Task(label.NAME, block)
        yield Task(label.NAME, neighbor)


def resolve_needs(plan: RunPlan, index: int) -> Iterator[Task]:
    """Yield the tasks of the tree that a group needs: its parts on the way up, its parent on the way down."""
    for needed in resolve.needs(plan, index):
        yield Task(resolve.NAME, needed)


def pyramid_needs(plan: RunPlan, index: int) -> Iterator[Task]:
    """Yield the cells of the level below that a cell is made from."""
    mip, number = pyramid.locate(index, plan)
    below = pyramid.cell_below(mip, plan.pyramid_grids[mip - 1].box(number), plan)
    if mip == 1:
        for cell in plan.relabel_grid.touched_by(below):
            yield Task(relabel.NAME, cell)
        return
    first = pyramid.first_task(mip - 1, plan)
    for cell in plan.pyramid_grids[mip - 2].touched_by(below):
        yield Task(pyramid.NAME, first + cell)


def stage_specs(plan: RunPlan) -> list[StageSpec]:
    """Describe the stages of a plan, in order."""
    model_stage = model_stage_name(plan)
    modules = stages_of(plan)
    needs: dict[str, Callable[[RunPlan, int], Iterator[Task]]] = {
        label.NAME: label_needs,
        match.NAME: match_needs,
        resolve.NAME: resolve_needs,
        pyramid.NAME: pyramid_needs,
    }
    solved = (resolve.NAME,)
    after: dict[str, tuple[str, ...]] = {audit.NAME: solved, relabel.NAME: solved}
    if plan.restitch is None:
        after[resolve.NAME] = (label.NAME, match.NAME)
    return [
        StageSpec(
            module.NAME,
            len(module.tasks(plan)),
            after=after.get(module.NAME, ()),
            lane=DEVICE_LANE if model_stage == module.NAME else CPU_LANE,
            group_size=_MATCH_GROUP if module is match else 1,
            **({"needs": partial(needs[module.NAME], plan)} if module.NAME in needs else {}),
        )
        for module in modules
    ]


def stages_of(plan: RunPlan) -> tuple[ModuleType, ...]:
    """Give the stages of a plan, in order."""
    return STAGES if plan.restitch is None else RESTITCH_STAGES


def model_stage_name(plan: RunPlan) -> str:
    """Name the stage that calls the model."""
    return label.NAME if plan.predict_grid is None else predict.NAME


@dataclass(frozen=True)
class RunStages:
    """The stages of one plan; sent to every worker once."""

    plan: RunPlan
    """What the stages follow."""
    identity: SegmenterIdentity
    """The segmenter that the driver found; a worker that finds another one refuses to work."""

    def specs(self) -> Sequence[StageSpec]:
        """See `StageSet.specs`."""
        return stage_specs(self.plan)

    def create(self) -> None:
        """See `StageSet.create`."""
        TaskContext(self.plan, options=storage_options(self.plan.config.storage)).create()

    def open(self) -> RunRoom:
        """See `StageSet.open`."""
        return RunRoom(self)


class RunRoom:
    """The stages on one worker. The model is loaded by the first task that calls it: CPU workers never load it."""

    def __init__(self, stages: RunStages) -> None:
        self._plan = stages.plan
        self._identity = stages.identity
        self._options = storage_options(stages.plan.config.storage)
        self._plain = TaskContext(self._plan, options=self._options)
        # Makes no request, but imports what the formats need: better now than in the first task that writes.
        self._formats = {type(writer).__name__ for writer in self._plain.writers}
        self._with_model: TaskContext | None = None
        self._loading = threading.Lock()
        self._modules: dict[str, ModuleType] = {module.NAME: module for module in STAGES}
        self._model_stage = model_stage_name(self._plan)

    def run(self, task: Task) -> TaskResult:
        """See `StageRoom.run`."""
        context = self._model_context() if task.stage == self._model_stage else self._plain
        return translate(self._modules[task.stage].run(task.index, self._plan, context))

    def close(self) -> None:
        """Forget the model."""
        self._with_model = None

    def _model_context(self) -> TaskContext:
        with self._loading:
            if self._with_model is None:
                self._with_model = self._load()
            return self._with_model

    def _load(self) -> TaskContext:
        """Load the segmenter.

        Raises:
            WeightsError: it is not the one that the driver found.
        """
        section = self._plan.config.segmenter
        demand = describe_segmenter(section, self._plan.source_voxel_size_nm)
        if demand.identity != self._identity:
            raise WeightsError(
                f"loading the segmenter on a worker: found {demand.identity}, the driver has {self._identity}; give "
                f"every machine the same model file"
            )
        return TaskContext(
            self._plan,
            options=self._options,
            demand=demand,
            segmenter=load_segmenter(section, self._plan.source_voxel_size_nm),
            device_lock=threading.Lock(),
        )


def translate(report: TaskReport) -> TaskResult:
    """Turn a stage's report into what the journal wants."""
    units = tuple(UnitSum(unit.volume, unit.position, unit.crc32c) for unit in report.units)
    return TaskResult(report.outcome == "empty", units, dict(report.seconds), dict(report.counters), report.remark)
