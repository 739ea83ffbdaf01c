"""`sam4em evaluate` on volumes small enough to reckon by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

SHAPE = (5, 7, 199)


@pytest.fixture
def pair(write_volume):
    """One voxel on each side, 97 voxels of 8 nm apart: 776 nm."""
    pred, true = np.zeros(SHAPE, np.uint64), np.zeros(SHAPE, np.uint64)
    pred[2, 3, 11] = true[2, 3, 108] = 1
    return write_volume("pred.zarr", pred, "labels"), write_volume("true.zarr", true, "labels")


def rows(text):
    """Read the table: name -> text."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    return {row[0]: row[1] for row in cells if len(row) == 2}


def test_beyond_the_cap_is_told_as_such(command, pair):
    pred, true = pair
    ended = command("evaluate", "--prediction", pred, "--truth", true, "--hd95-cap-nm", "500", "--json", "s.json")
    assert ended.code == 0
    assert rows(ended.out)["hd95"] == ">= 500 nm"
    values = json.loads(Path("s.json").read_text())
    assert (values["hd95"], values["hd95_nm"], values["hd95_at_least"]) == (">= 500 nm", 500.0, True)


def test_how_far_it_is_goes_to_stderr(command, pair):
    pred, true = pair
    told = command("evaluate", "--prediction", pred, "--truth", true).err.splitlines()
    assert told == ["overlaps: 1 of 1 done", "surfaces: 1 of 1 done"]
    told = command("evaluate", "--prediction", pred, "--truth", true, "--hd95-cap-nm", "0").err.splitlines()
    assert told == ["overlaps: 1 of 1 done"]


def test_below_the_cap_it_is_a_distance(command, pair):
    pred, true = pair
    ended = command("evaluate", "--prediction", pred, "--truth", true, "--json", "s.json")
    assert rows(ended.out)["hd95"] == "776 nm"
    values = json.loads(Path("s.json").read_text())
    assert (values["hd95"], values["hd95_nm"], values["hd95_at_least"]) == ("776 nm", 776.0, False)


def test_the_region_is_in_voxels_of_the_truth(command, write_volume):
    """The truth has voxels of 16 nm in x, the prediction of 8 nm: the region is counted in the former."""
    true = np.zeros((5, 7, 20), np.uint64)
    true[:, :, 11:17] = 1
    pred = true.repeat(2, axis=2)
    pred[:, :, :22] = 1
    paths = write_volume("pred.zarr", pred, "labels"), write_volume("true.zarr", true, "labels", (8.0, 8.0, 16.0))
    call = ["evaluate", "--prediction", paths[0], "--truth", paths[1], "--json", "s.json"]
    assert command(*call).code == 0
    assert json.loads(Path("s.json").read_text())["iou"] == pytest.approx(6 / 17)
    assert command(*call, "--roi", "0:5,0:7,11:20").code == 0
    values = json.loads(Path("s.json").read_text())
    assert (values["iou"], values["voxels"]) == (1.0, 5 * 7 * 18)
    assert "voxels of the truth volume" in " ".join(command("evaluate", "--help").out.replace("│", " ").split())
    ended = command(*call, "--roi", "0:5,0:7,11:21")
    assert ended.code == 2
    assert "outside the volume" in ended.err


def test_a_report_that_cannot_be_written_is_refused_before_the_scoring(command, pair):
    pred, true = pair
    ended = command("evaluate", "--prediction", pred, "--truth", true, "--json", "nodir/x")
    assert (ended.code, ended.out) == (2, "")
    assert "--json nodir/x: the folder nodir does not exist" in ended.err
    ended = command("evaluate", "--prediction", pred, "--truth", true, "--json", "/dev/full")
    assert ended.code == 3
    assert "no space is left" in ended.err


def test_signed_labels_are_refused(command, pair, tmp_path):
    signed = zarr.create_array(store=str(tmp_path / "signed.zarr"), shape=SHAPE, dtype="int32", chunks=(5, 7, 64))
    signed[2, 3, 5] = -1
    for sides in ((pair[0], tmp_path / "signed.zarr"), (tmp_path / "signed.zarr", pair[1])):
        ended = command("evaluate", "--prediction", sides[0], "--truth", sides[1])
        assert ended.code == 3
        assert "signed.zarr" in ended.err
        assert "int32" in ended.err


def test_one_class_of_a_truth_that_holds_several(command, write_volume):
    pred, true = np.zeros(SHAPE, np.uint64), np.zeros(SHAPE, np.uint64)
    pred[:, :, 11:31] = 1
    true[:, :, 11:21], true[:, :, 21:51], true[:, :, 60:70] = 3, 1, 2
    paths = write_volume("pred.zarr", pred, "labels"), write_volume("true.zarr", true, "labels")
    call = ["evaluate", "--prediction", paths[0], "--truth", paths[1], "--json", "s.json", "--truth-values"]
    for values, shared, either in (("3", 10, 20), ("1, 3", 20, 40), ("2", 0, 30)):
        assert command(*call, values).code == 0
        scores = json.loads(Path("s.json").read_text())
        assert scores["iou"] == pytest.approx(shared / either)
        assert scores["true_positive_voxels"] == shared * SHAPE[0] * SHAPE[1]
    for wrong in ("", "0", "1,x", "-1"):
        ended = command(*call, wrong)
        assert ended.code == 2
        assert "--truth-values" in ended.err
        assert "expected whole numbers above 0" in ended.err
