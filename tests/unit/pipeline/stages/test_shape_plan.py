"""The plan of shapes: which task is which, and which blocks an object asks."""

import pickle

import pytest

from pipeline.config.shapes import MeshSection, SkeletonSection
from pipeline.errors import OurError
from pipeline.geometry import Box
from pipeline.stages.mesh import cubes_box
from pipeline.stages.shape_plan import MeshPlan, ShapedVolume, SkeletonPlan, fragment_key, shape_unit
from pipeline.stages.skeleton import shared_box
from pipeline.storage import LabelVolumeSpec


def make_volume(first_id, num_ids):
    spec = LabelVolumeSpec("seg", (10, 20, 30), (30.0, 8.0, 8.0), (4, 8, 8), factors_zyx=((1, 2, 2),))
    return ShapedVolume("precomputed", spec, "seg/skeletons", first_id, num_ids, ())


def make_plan(**section):
    volumes = (make_volume(1, 70), make_volume(71, 0), make_volume(71, 60))
    return SkeletonPlan(
        SkeletonSection(objects_per_shard=64, **section), "seg.run", "seg.run/skeleton", (4, 8, 8), volumes
    )


def test_every_range_of_ids_is_one_task():
    plan = make_plan()
    assert plan.num_block_tasks() == 3 * 3 * 3 * 4
    assert [plan.locate_shard(index) for index in range(plan.num_join_tasks())] == [(0, 0), (0, 1), (2, 1), (2, 2)]
    with pytest.raises(OurError, match="skeleton-join task 4 does not exist; there are 4"):
        plan.locate_shard(4)


def test_blocks_share_their_upper_planes_and_end_with_the_volume():
    plan = make_plan()
    assert shared_box(plan, 0) == Box((0, 0, 0), (5, 9, 9))
    assert shared_box(plan, len(plan.grid) - 1) == Box((8, 16, 24), (10, 20, 30))
    meshes = MeshPlan(MeshSection(), "seg.run", "seg.run/mesh", (4, 8, 8), plan.volumes)
    assert cubes_box(meshes, 0) == Box((-1, -1, -1), (5, 9, 9))


def test_an_object_asks_every_block_whose_voxels_it_has():
    plan = make_plan()
    for box in (Box((4, 8, 8), (5, 9, 9)), Box((3, 7, 7), (4, 8, 8)), Box((0, 0, 0), (10, 20, 30))):
        holders = [block for block in range(len(plan.grid)) if not shared_box(plan, block).intersection(box).is_empty]
        assert plan.blocks_of(box) == holders
    assert make_plan(mip=1).blocks_of(Box((9, 19, 29), (10, 20, 30))) == [11]


def test_names_and_the_way_to_a_worker():
    plan = make_plan()
    assert shape_unit(plan, 2) == "skeleton-2"
    assert fragment_key("fragments", 2, 12345) == "fragments/02/012/345"
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301
