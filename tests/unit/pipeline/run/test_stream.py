import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OurError
from pipeline.ledger import DoneMap
from pipeline.run.stream import LOOKAHEAD, StageCounts, StageSpec, Task, TaskStream


def chain_of_stages(num_blocks, width=5):
    """Predict -> label (itself, one before, one after, one row after) -> match (two labels) -> the rest."""

    def label_needs(index):
        near = {index - 1, index, index + 1, index + width}
        return [Task("predict", other) for other in sorted(near) if 0 <= other < num_blocks]

    def match_needs(index):
        block, axis = divmod(index, 2)
        upper = block + (1 if axis else width)
        return [Task("label", block)] + ([Task("label", upper)] if upper < num_blocks else [])

    return [
        StageSpec("predict", num_blocks, lane="device"),
        StageSpec("label", num_blocks, label_needs),
        StageSpec("match", 2 * num_blocks, match_needs),
        StageSpec("resolve", 1, after=("match", "label")),
        StageSpec("relabel", num_blocks // 2 + 1, after=("resolve",)),
        StageSpec("pyramid", 3, after=("relabel",)),
    ]


class Bench:
    """Carries tasks out in random order and checks every promise of the stream on the way."""

    def __init__(self, specs, seed, fails=lambda task: False, done=None, windows=None):
        self.specs = {spec.name: spec for spec in specs}
        self.done = done or {spec.name: DoneMap(spec.num_tasks) for spec in specs}
        self.windows = windows or {"cpu": 7, "device": 3}
        self.stream = TaskStream(specs, self.done, self.windows)
        self.random = random.Random(seed)
        self.fails, self.order, self.failed = fails, [], set()

    def run(self):
        in_flight = []
        while True:
            taken = self.stream.take()
            for task in taken:
                self.check_ready(task)
            assert len(set(self.order) & set(taken)) == 0
            in_flight += taken
            self.order += taken
            for lane, window in self.windows.items():
                assert sum(self.specs[task.stage].lane == lane for task in in_flight) <= window
            assert self.stream.num_in_flight == len(in_flight)
            if not in_flight:
                break
            self.random.shuffle(in_flight)
            for _ in range(self.random.randint(1, len(in_flight))):
                self.end(in_flight.pop())
        assert self.stream.is_settled
        return self

    def check_ready(self, task):
        spec = self.specs[task.stage]
        assert task.index not in self.done[task.stage]
        assert all(needed.index in self.done[needed.stage] for needed in spec.needs(task.index))
        assert all(self.done[name].is_full for name in spec.after)

    def end(self, task):
        if self.fails(task):
            self.failed.add(task)
            self.stream.fail(task)
        else:
            self.done[task.stage].add(task.index)
            self.stream.finish(task)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 47), st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_every_task_is_handed_out_once_and_in_time(num_blocks, seed, cpu, device):
    specs = chain_of_stages(num_blocks)
    bench = Bench(specs, seed, windows={"cpu": cpu, "device": device}).run()
    assert len(bench.order) == sum(spec.num_tasks for spec in specs)
    assert all(done.is_full for done in bench.done.values())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 47), st.integers(0, 2**32), st.floats(0, 0.3))
def test_failures_block_what_needs_them_and_nothing_else(num_blocks, seed, share):
    dice = random.Random(seed)
    specs = chain_of_stages(num_blocks)
    bench = Bench(specs, seed, fails=lambda task: dice.random() < share).run()
    counts = bench.stream.counts()
    for spec in specs:
        count = counts[spec.name]
        assert count.running == count.to_do == 0
        assert count.failed == sum(task.stage == spec.name for task in bench.failed)
    lost = {spec.name: set(range(spec.num_tasks)) - members(bench.done[spec.name]) for spec in specs}
    for spec in specs:
        for index in lost[spec.name]:
            task = Task(spec.name, index)
            has_lost_need = any(needed.index in lost[needed.stage] for needed in spec.needs(index))
            assert task in bench.failed or has_lost_need or any(lost[name] for name in spec.after)
    assert bench.stream.num_failed == len(bench.failed)


@given(st.integers(1, 47), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_a_resumed_run_does_only_what_is_missing(num_blocks, seed):
    specs = chain_of_stages(num_blocks)
    dice = random.Random(seed)
    first = Bench(specs, seed, fails=lambda task: dice.random() < 0.1).run()
    done_before = {name: members(done) for name, done in first.done.items()}
    second = Bench(specs, seed, done=first.done).run()
    assert all(done.is_full for done in second.done.values())
    assert not any(task.index in done_before[task.stage] for task in second.order)


def members(done):
    return {index for index in range(done.num_tasks) if index in done}


def test_later_stages_come_first():
    specs = [StageSpec("label", 11), StageSpec("relabel", 11, lambda index: [Task("label", index)])]
    done = {spec.name: DoneMap(11) for spec in specs}
    stream = TaskStream(specs, done, {"cpu": 2})
    assert stream.take() == [Task("label", 0), Task("label", 1)]
    done["label"].add(1)
    stream.finish(Task("label", 1))
    assert stream.take() == [Task("relabel", 1)]


def test_waiting_tasks_are_bounded_and_do_not_hold_up_the_stage_before():
    num_tasks = 3 * LOOKAHEAD
    specs = [StageSpec("label", num_tasks), StageSpec("match", num_tasks, lambda index: [Task("label", 0)])]
    done = {spec.name: DoneMap(num_tasks) for spec in specs}
    stream = TaskStream(specs, done, {"cpu": 4})
    slow, *others = stream.take()
    assert slow == Task("label", 0)
    for _ in range(num_tasks // 3):
        for task in others:
            done["label"].add(task.index)
            stream.finish(task)
        others = stream.take()
        if not others:
            break
    assert done["label"].next_missing(1) is None
    done["label"].add(0)
    stream.finish(slow)
    assert [task.stage for task in stream.take()] == ["match"] * 4


def test_the_window_is_refilled_in_batches():
    done = {"label": DoneMap(1009)}
    stream = TaskStream([StageSpec("label", 1009)], done, {"cpu": 64})
    first = stream.take()
    assert len(first) == 64
    sizes = []
    for task in first[:8]:
        done["label"].add(task.index)
        stream.finish(task)
        sizes.append(len(stream.take()))
    assert sizes == [0] * 7 + [8]


def test_needs_that_cannot_be_met_are_a_bug_and_no_hang():
    specs = [StageSpec("label", 3, lambda index: [Task("label", index)])]
    stream = TaskStream(specs, {"label": DoneMap(3)}, {"cpu": 2})
    with pytest.raises(OurError, match="no task can ever be ready"):
        stream.take()


def test_a_lane_without_a_window_is_a_bug():
    with pytest.raises(OurError, match="'device', which has no window"):
        TaskStream([StageSpec("predict", 1, lane="device")], {"predict": DoneMap(1)}, {"cpu": 1})


def test_counts_add_up():
    assert StageCounts(total=11, done=2, failed=1, blocked=3, running=1).to_do == 4
