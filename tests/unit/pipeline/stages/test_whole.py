"""All stages in one process: the same as labelling the whole volume at once."""

import io
import json
import pickle

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import ndimage

from pipeline.geometry import Box
from pipeline.labels.downsample import downsample_mode
from pipeline.labels.seams import find_mismatch
from pipeline.stages import layout, resolve
from pipeline.storage import unpack_table


def whole_of(run, output=0, mip=0):
    spec = run.plan.outputs[output].spec
    return run.context.writers[output].read(mip, Box.of_shape(spec.shape(mip)))


def table_of(run, key="segments.parquet"):
    return pq.read_table(io.BytesIO(run.context.objects.get(key)))


def assert_same_up_to_names(found, expected):
    pairs = np.unique(np.stack([found.ravel(), expected.ravel().astype(np.uint64)]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert not ((pairs[0] == 0) ^ (pairs[1] == 0)).any()


def test_components_equal_the_whole(make_run, blob_image):
    image = blob_image
    run = make_run(image)
    reports = run.run_all()
    expected, num_expected = ndimage.label(image >= 128)
    assert len(run.plan.label_grid) == 27
    assert num_expected > 20
    found = whole_of(run)
    assert_same_up_to_names(found, expected)
    assert set(np.unique(found)) == set(range(num_expected + 1))
    assert (whole_of(run, output=1) == found).all()
    assert all(pickle.loads(pickle.dumps(report)) == report for stage in reports.values() for report in stage)  # noqa: S301


def test_the_pyramid_is_the_mode_of_the_level_below(make_run, blob_image):
    run = make_run(blob_image)
    run.run_all()
    for output in (0, 1):
        for mip in (1, 2):
            expected = downsample_mode(whole_of(run, output, mip - 1), run.plan.mip_factors[mip - 1])
            assert (whole_of(run, output, mip) == expected).all()
            assert expected.any()


def test_the_instance_table_tells_of_whole_objects(make_run, blob_image):
    image = blob_image
    run = make_run(image)
    run.run_all()
    found, table = whole_of(run), table_of(run).to_pylist()
    boxes = ndimage.find_objects(found.astype(np.int32))
    keys = [layout.lut_key(block) for block in range(len(run.plan.label_grid))]
    luts = [unpack_table(run.context.objects.get(key), key)["class0_ids"] for key in keys]
    assert [row["id"] for row in table] == list(range(1, len(boxes) + 1))
    for row, box in zip(table, boxes, strict=True):
        inside = found == row["id"]
        assert row["voxels"] == inside.sum()
        assert row["volume_nm3"] == pytest.approx(inside.sum() * 12.0 * 8.0 * 8.0)
        assert [row["z0"], row["y0"], row["x0"]] == [part.start for part in box]
        assert [row["z1"], row["y1"], row["x1"]] == [part.stop for part in box]
        center = (np.array(ndimage.center_of_mass(inside)) + 0.5) * [12.0, 8.0, 8.0]
        assert [row[f"centroid_{axis}_nm"] for axis in "zyx"] == pytest.approx(center)
        assert row["mean_probability"] == pytest.approx(image[inside].mean() / 255)
        ends = [part.start == 0 or part.stop == size for part, size in zip(box, image.shape, strict=True)]
        assert row["touches_border"] == any(ends)
        assert row["num_labels"] == sum(int((lut == row["id"]).sum()) for lut in luts)
    assert max(row["num_labels"] for row in table) > 2


def test_ids_do_not_depend_on_the_order_of_tasks(make_run, blob_image):
    first, second = make_run(blob_image, "first"), make_run(blob_image, "second")
    first.run_all()
    second.run_all(order=lambda indices: np.random.default_rng(3).permutation(indices).tolist())
    assert (whole_of(first) == whole_of(second)).all()
    assert table_of(first).equals(table_of(second))


def test_a_task_done_twice_changes_nothing(make_run, blob_image):
    run = make_run(blob_image)
    reports = run.run_all()
    before = whole_of(run)
    again = run.run_all()
    assert (whole_of(run) == before).all()
    for name, stage in reports.items():
        assert [report.units for report in stage] == [report.units for report in again[name]]


def test_every_write_unit_is_reported_once_and_verifies(make_run, blob_image):
    run = make_run(blob_image)
    reports = run.run_all()
    units = [unit for name in ("relabel", "pyramid") for report in reports[name] for unit in report.units]
    assert len({(unit.volume, unit.position) for unit in units}) == len(units)
    writers = run.context.writers
    assert len(units) == sum(writer.num_files(mip) for writer in writers for mip in range(run.plan.num_mips))
    for unit in units:
        output, mip = unit.volume.removeprefix("output-").split("/")
        writers[int(output)].verify_unit(int(mip), unit)


def test_size_and_seed_are_decided_on_whole_objects(make_run, blob_image):
    image = blob_image
    rule = {"threshold": 0.5, "seed_threshold": 0.7, "min_size_nm3": 100 * 12.0 * 8.0 * 8.0, "fill_holes_voxels": 3}
    run = make_run(image, classes={"object": rule})
    run.run_all()
    mask = image >= 128
    holes, _ = ndimage.label(~mask, np.ones((3, 3, 3)))
    for number, box in enumerate(ndimage.find_objects(holes), 1):
        inner = all(part.start > 0 and part.stop < n for part, n in zip(box, mask.shape, strict=True))
        if inner and all(part.stop - part.start < 3 for part in box):
            mask = mask | (holes == number)
    expected, num = ndimage.label(mask)
    dropped = [n for n in range(1, num + 1) if (expected == n).sum() < 100 or image[expected == n].max() < 179]
    assert 0 < len(dropped) < num
    expected[np.isin(expected, dropped)] = 0
    assert_same_up_to_names(whole_of(run), expected)


def test_a_semantic_class_has_one_id(make_run, blob_image):
    image = blob_image
    run = make_run(image, classes={"object": {"kind": "semantic"}})
    reports = run.run_all()
    assert ((whole_of(run) == 1) == (image >= 128)).all()
    assert table_of(run).num_rows == 1
    assert all(report.outcome == "empty" for report in reports["match"])


def test_a_region_is_labelled_in_its_own_voxels(make_run, blob_image):
    image = blob_image
    run = make_run(image, image={"roi": "5:38,11:60,3:64"})
    run.run_all()
    assert_same_up_to_names(whole_of(run), ndimage.label(image[5:38, 11:60, 3:64] >= 128)[0])
    first = table_of(run).to_pylist()[0]
    assert first["z0"] >= 5
    assert first["y0"] >= 11


def test_blocks_of_one_grey_are_skipped_and_counted(make_run, blob_image):
    image = blob_image.copy()
    image[:, :, 40:] = 3
    run = make_run(image)
    reports = run.run_all()
    assert sum(report.counters.get("blocks_of_one_grey", 0) for report in reports["label"]) == 9
    assert_same_up_to_names(whole_of(run), ndimage.label(image >= 128)[0])


def test_an_empty_volume_gives_an_empty_output(make_run):
    run = make_run(np.full((41, 67, 71), 9, np.uint8))
    reports = run.run_all()
    assert not whole_of(run).any()
    assert table_of(run).num_rows == 0
    assert {report.outcome for stage in reports.values() for report in stage} == {"empty"}


def test_every_judged_pair_is_in_the_audit_table(make_run, blob_image):
    run = make_run(blob_image)
    reports = run.run_all()
    found = whole_of(run)
    audit = table_of(run, "edges.parquet").to_pylist()
    assert len(audit) == reports["resolve"][0].counters["merges"] > 10
    for row in audit:
        assert row["accepted"] and row["reason"] == "shared voxel" and 0 < row["score"] <= 1
        assert row["lower_id"] == row["upper_id"] == found[row["z"], row["y"], row["x"]] > 0
        assert run.plan.label_grid.upper_neighbor(row["lower_block"], row["axis"]) == row["upper_block"]


def test_components_leave_no_seam(make_run, blob_image):
    run = make_run(blob_image)
    run.run_all()
    seams = table_of(run, "seams.parquet").to_pylist()
    grid = run.plan.label_grid
    faces = {(b, a, grid.upper_neighbor(b, a)) for b in range(len(grid)) for a in range(3)}
    assert {(r["lower_block"], r["axis"], r["upper_block"]) for r in seams} == {f for f in faces if f[2] is not None}
    assert sum(row["mismatch_voxels"] for row in seams) == 0
    assert sum(row["labelled_voxels"] for row in seams) > 100
    assert all(row[f"{a}1"] > row[f"{a}0"] for row in seams for a in "zyx")


def test_a_watershed_has_seams_and_they_are_counted_voxel_by_voxel(make_run):
    noise = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((24, 48, 52)), 3)
    image = np.clip(127 + 55 * (noise / noise.std() - 0.4), 1, 254).astype(np.uint8)
    rule = {"method": "watershed", "seed_spacing_nm": 60.0, "min_iou": 0.95, "min_size_nm3": 3000.0}
    run = make_run(image, classes={"object": rule}, plan={"block_zyx": [16, 32, 32], "watershed_halo_voxels": 12})
    run.run_all()
    rows, foreign = table_of(run, "seams.parquet").to_pylist(), 0
    for row in rows:
        sides = []
        for block, side in ((row["lower_block"], 1), (row["upper_block"], 0)):
            key = layout.face_key(block, row["axis"], side)
            slab = unpack_table(run.context.objects.get(key), key)["class0_labels"]
            key = layout.lut_key(block)
            sides.append((slab, unpack_table(run.context.objects.get(key), key)["class0_ids"]))
        labelled, mismatched, num_foreign = mismatch_voxel_by_voxel(*sides[0], *sides[1])
        assert (row["labelled_voxels"], row["mismatch_voxels"]) == (labelled, mismatched)
        foreign += num_foreign
        assert row["mismatch_fraction"] == row["mismatch_voxels"] / row["slab_voxels"]
    assert max(row["mismatch_fraction"] for row in rows) > 0
    assert foreign > 0


def mismatch_voxel_by_voxel(lower, lower_ids, upper, upper_ids):
    """Count labelled and mismatched voxels of a slab in the plainest way."""
    if lower.size == 0 or upper.size == 0:
        shape = lower.shape if lower.size else upper.shape
        lower, upper = (slab if slab.size else np.zeros(shape, np.uint8) for slab in (lower, upper))
    labelled = mismatched = foreign = 0
    for a, b in zip(lower.ravel().tolist(), upper.ravel().tolist(), strict=True):
        if a == len(lower_ids) or b == len(upper_ids):
            foreign += 1
            continue
        ids = (int(lower_ids[a]), int(upper_ids[b]))
        labelled += any(ids)
        mismatched += ids[0] != ids[1]
    if lower.size:
        assert find_mismatch(lower, upper, lower_ids, upper_ids).sum() == mismatched
    return labelled, mismatched, foreign


@pytest.mark.parametrize("most", [1, 4])
def test_a_tree_of_groups_gives_what_one_group_gives(make_run, blob_image, most):
    rules = {"object": {"min_size_nm3": 30_000.0, "seed_threshold": 0.6}}
    flat = make_run(blob_image, "flat", classes=rules)
    flat.run_all()
    tree = make_run(blob_image, "tree", classes=rules, plan={"resolve_group_blocks": most})
    reports = tree.run_all(order=reversed)
    assert len(reports["resolve"]) == 2 * tree.plan.group_tree.num_nodes - 1 > 16
    assert_same_up_to_names(whole_of(tree), whole_of(flat))
    assert set(np.unique(whole_of(tree))) == set(np.unique(whole_of(flat)))
    tables = [pq.read_table(run.plan.run_url + "/segments.parquet").to_pylist() for run in (flat, tree)]
    assert sorted(row.pop("id") for row in tables[1]) == [row.pop("id") for row in tables[0]]
    assert sorted(map(repr, tables[1])) == sorted(map(repr, tables[0]))
    for name in ("edges", "seams"):
        rows = [pq.read_table(f"{run.plan.run_url}/{name}.parquet").to_pylist() for run in (flat, tree)]
        names = ("lower_id", "upper_id")
        plain = [sorted(repr({k: v for k, v in row.items() if k not in names}) for row in table) for table in rows]
        assert plain[0] == plain[1]
    totals = [sum_counters(run_reports) for run_reports in (flat.run_stage(resolve), reports["resolve"])]
    assert totals[0] == totals[1]


def sum_counters(reports):
    names = {name for report in reports for name in report.counters}
    return {name: sum(report.counters.get(name, 0) for report in reports) for name in names}


def test_two_classes_in_a_tree_have_ids_of_their_own(make_two_class_run, blob_image):
    rules = {"bright": {}, "dark": {"kind": "semantic"}}
    run = make_two_class_run(blob_image, classes=rules, plan={"resolve_group_blocks": 2})
    run.run_all()
    rows = pq.read_table(run.plan.run_url + "/segments.parquet").to_pylist()
    dark = [row["id"] for row in rows if row["class"] == "dark"]
    bright = sorted(row["id"] for row in rows if row["class"] == "bright")
    assert bright == list(range(1, len(bright) + 1))
    assert dark == [len(bright) + 1]
    assert set(np.unique(whole_of(run, 1))) == {0, *dark}
    properties = json.loads(run.context.objects.get(layout.IDS_KEY))
    assert properties["dark"] == {"first_id": dark[0], "num_ids": 1}
