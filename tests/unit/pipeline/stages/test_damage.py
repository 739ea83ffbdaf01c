"""Tables that are missing, torn or of another run, and tasks that do not exist."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import CorruptData, OurError, PlanError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.labels.overlaps import OverlapTable
from pipeline.stages import audit, label, layout, match, pyramid, relabel, resolve
from pipeline.storage import pack_table


@pytest.fixture
def labelled(make_run, blob_image):
    run = make_run(blob_image)
    run.context.create()
    run.run_stage(label)
    return run


def test_a_lost_face_is_an_error_and_not_a_cut(labelled):
    labelled.context.objects.delete(layout.face_key(0, 2, 1))
    with pytest.raises(VolumeNotFound):
        match.run(2, labelled.plan, labelled.context)


def test_a_torn_face_is_an_error(labelled):
    key = layout.face_key(0, 2, 1)
    data = labelled.context.objects.get(key)
    labelled.context.objects.put(key, data[:-5])
    with pytest.raises(CorruptData, match="torn"):
        match.run(2, labelled.plan, labelled.context)


def test_faces_of_different_plans_are_refused(labelled):
    for key, width in ((layout.face_key(0, 2, 1), 5), (layout.face_key(1, 2, 0), 7)):
        slab = {"class0_labels": np.ones((2, 3, width), np.uint8), "class0_foreign": np.array([2], np.uint64)}
        labelled.context.objects.put(key, pack_table(slab))
    with pytest.raises(CorruptData, match="different plans"):
        match.run(2, labelled.plan, labelled.context)


def test_an_edge_that_names_no_label_is_refused(labelled):
    labelled.run_stage(match)
    values = (9999, 1, 1, 1, 1, 0)
    columns = {f"class0_{n}": np.array([v], np.uint64) for n, v in zip(OverlapTable._fields, values, strict=True)}
    labelled.context.objects.put(layout.edges_key(0, 0), pack_table(columns))
    with pytest.raises(CorruptData, match="names label 9999 of block 0"):
        resolve.run(0, labelled.plan, labelled.context)


def test_a_label_without_an_id_is_a_bug(labelled):
    labelled.run_stage(match)
    labelled.run_stage(resolve)
    labelled.context.objects.put(layout.lut_key(0), pack_table({"class0_ids": np.array([0, 1], np.uint64)}))
    with pytest.raises(OurError, match="has no entry"):
        relabel.run(0, labelled.plan, labelled.context)


def test_pyramid_tasks_are_numbered_level_by_level(make_run, blob_image):
    plan = make_run(blob_image).plan
    counts = [len(grid) for grid in plan.pyramid_grids]
    assert pyramid.locate(0, plan) == (1, 0)
    assert pyramid.locate(counts[0], plan) == (2, 0)
    assert pyramid.first_task(2, plan) == counts[0]
    assert len(pyramid.tasks(plan)) == sum(counts)
    with pytest.raises(OurError, match="does not exist"):
        pyramid.locate(sum(counts), plan)


def test_both_neighbors_name_the_same_slab(make_run, blob_image):
    grid = make_run(blob_image).plan.label_grid
    for index in range(len(grid)):
        for axis in range(3):
            neighbor = grid.upper_neighbor(index, axis)
            if neighbor is not None:
                slab = layout.face_box(grid, index, axis, 1, 3)
                assert slab == layout.face_box(grid, neighbor, axis, 0, 3)
                assert slab.shape[axis] <= 6


def test_the_slab_of_an_overlap_keeps_its_distance_from_the_end_of_the_halo(make_run, blob_image):
    rule = {"method": "watershed", "seed_spacing_nm": 60.0}
    for halo, reach in ((12, 12), (16, 12), (24, 12), (32, 16)):
        plan = make_run(blob_image, f"h{halo}", classes={"object": rule}, plan={"watershed_halo_voxels": halo}).plan
        assert layout.slab_reach(plan, plan.classes[0], 0) == reach


def test_a_scratch_chunk_divides_its_block_or_is_the_block():
    assert layout.scratch_chunk((64, 1024, 96)) == (64, 128, 96)
    assert layout.scratch_chunk((131, 20, 254)) == (131, 20, 127)


def test_scratch_goes_and_outputs_stay(make_run, blob_image):
    run = make_run(blob_image)
    run.run_all()
    run.context.delete_scratch()
    assert not run.context.objects.exists(layout.lut_key(0))
    assert not run.context.objects.exists(layout.edges_key(0, 0))
    assert run.context.objects.exists(layout.EDGES_KEY)
    assert run.context.writers[0].read(0, Box.of_shape(blob_image.shape)).any()


def test_a_watershed_runs_through_all_stages(make_run, blob_image):
    rule = {"method": "watershed", "seed_spacing_nm": 60.0}
    run = make_run(blob_image, classes={"object": rule}, plan={"block_zyx": [32, 64, 64]})
    reports = run.run_all()
    found = run.context.writers[0].read(0, Box.of_shape(blob_image.shape))
    assert ((found > 0) == (blob_image >= 128)).all()
    assert reports["resolve"][0].counters["pairs"] >= reports["resolve"][0].counters["merges"] > 0
    assert len(np.unique(found)) > len(np.unique(ndimage.label(blob_image >= 128)[0]))


def test_more_labels_than_a_group_can_take_are_refused_where_they_are_made(make_run, blob_image, monkeypatch):
    run = make_run(blob_image, plan={"resolve_group_blocks": 4})
    assert layout.max_labels_per_block(run.plan) == (2**31 - 2) // 4
    monkeypatch.setattr(layout, "MAX_NODES", 4)
    run.context.create()
    with pytest.raises(
        PlanError, match=r"labelling block 0: it has \d+ labels, groups of 4 blocks take at most 1 of each"
    ):
        label.run(0, run.plan, run.context)


def test_a_label_without_an_entry_in_the_map_fails_the_audit(labelled):
    labelled.run_stage(match)
    labelled.run_stage(resolve)
    labelled.context.objects.put(layout.lut_key(0), pack_table({"class0_ids": np.array([0], np.uint64)}))
    with pytest.raises(CorruptData, match="of block 0, whose map has 0"):
        audit.run(0, labelled.plan, labelled.context)
