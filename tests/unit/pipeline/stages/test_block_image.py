"""What is read of a block, and how often."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from pipeline.geometry import Box, source_box
from pipeline.image import resample, rescale
from pipeline.stages.block_image import layer_slices, read_block_image
from pipeline.stages.context import TaskContext
from pipeline.stages.report import Stopwatch
from pipeline.storage import StorageOptions

CHUNK_Z = 17
WORKINGS = [(8.0, 8.0, 8.0), (16.0, 10.0, 10.0), (5.0, 8.0, 8.0)]


class Coarse:
    """Wants six slices around a core, five at a time, and keeps what it is given."""

    slab_slices = 5

    def __init__(self, core, bounds, domain):
        self.box = core.grown((6, 3, 3)).intersection(bounds)
        self.slabs = []

    def add(self, values_zyx):
        self.slabs.append(values_zyx.copy())


class SpiedVolume:
    """A volume that notes the boxes that are read."""

    def __init__(self, volume):
        self._volume = volume
        self.info = volume.info
        self.boxes = []

    def read(self, box):
        self.boxes.append(box)
        return self._volume.read(box)


@pytest.fixture
def spied(make_two_class_run):
    """Plan a run over an image; give its plan and a context whose reads are noted."""

    def make(image, name="run", /, *, coarse=Coarse, **settings):
        run = make_two_class_run(image, name, **settings)
        demand = replace(run.context.demand, coarse=coarse)
        context = TaskContext(run.plan, options=StorageOptions(), demand=demand, segmenter=run.context.segmenter)
        context.image = SpiedVolume(context.image)
        return replace(run.plan, source_layer_slices=CHUNK_Z), context

    return make


@pytest.mark.parametrize("coarse", [None, Coarse])
@pytest.mark.parametrize("working_nm", WORKINGS)
def test_a_block_is_the_part_of_the_whole_resampled_and_every_layer_is_read_once(spied, blob_image, working_nm, coarse):
    plan, context = spied(blob_image, working_nm=working_nm, image={"roi": "5:40,0:64,3:60"}, coarse=coarse)
    source = plan.source_bounds
    whole = rescale(resample(blob_image, source, plan.working_bounds, plan.source_to_working, source), plan.grey_range)
    for core in (plan.predict_grid.box(0), plan.predict_grid.box(len(plan.predict_grid) - 1)):
        context.image.boxes.clear()
        found = read_block_image(core, plan, context, Stopwatch())
        part = partial(Box.relative_to, origin=plan.working_bounds.start)
        assert found.box == context.demand.context(core, plan.working_bounds, plan.working_domain)
        np.testing.assert_array_equal(found.values_zyx, whole[part(found.box).slices])
        if coarse is not None:
            assert {len(slab) for slab in found.coarse.slabs[:-1]} == {5}
            np.testing.assert_array_equal(np.concatenate(found.coarse.slabs), whole[part(found.coarse.box).slices])
        wanted = found.box if coarse is None else found.coarse.box
        read = source_box(wanted, plan.source_to_working, source).shifted(plan.source_origin_zyx)
        boxes = context.image.boxes
        assert (boxes[0].start, boxes[-1].stop) == (read.start, read.stop)
        assert all(before.stop[0] == after.start[0] for before, after in itertools.pairwise(boxes))
        assert all(box.start[0] % CHUNK_Z == 0 for box in boxes[1:])


def test_one_grey_value_everywhere_is_nothing_but_two_halves_of_one_each_are_something(spied):
    image = np.full((40, 64, 60), 7, np.uint8)
    plan, context = spied(image, plan={"predict_block_zyx": [12, 64, 64]})
    core = plan.predict_grid.box(0)
    assert read_block_image(core, plan, context, Stopwatch()) is None
    image[CHUNK_Z:] = 9
    plan, context = spied(image, "two")
    found = read_block_image(core, plan, context, Stopwatch())
    assert found.coarse.box.stop[0] == CHUNK_Z + 1, "the second layer is read for one slice of it"
    assert found.values_zyx.max() < found.coarse.slabs[-1].max()


def test_a_layer_is_whole_chunks():
    assert [layer_slices((depth, 64, 64)) for depth in (1, 17, 32, 64, 65, 128, 200)] == [64, 68, 64, 64, 65, 128, 200]
