import json
from pathlib import Path

import pytest

from pipeline.errors import StoreFull, UserError
from pipeline.run.reports import check_report_path, make_folder, write_report


def test_a_report_is_json(tmp_path):
    write_report(tmp_path / "my scores.json", {"iou": 0.5, "hd95": None})
    assert json.loads((tmp_path / "my scores.json").read_text()) == {"iou": 0.5, "hd95": None}


def test_a_file_that_cannot_be_is_refused_before_the_work(tmp_path):
    check_report_path(tmp_path / "scores.json", "--json")
    with pytest.raises(UserError, match=r"--json .*nodir/x: the folder .*nodir does not exist"):
        check_report_path(tmp_path / "nodir" / "x", "--json")
    with pytest.raises(UserError, match=r"--json .*: a folder is there"):
        check_report_path(tmp_path, "--json")


def test_a_full_disk_is_told():
    with pytest.raises(StoreFull, match=r"writing /dev/full: no space is left"):
        write_report(Path("/dev/full"), {"iou": 0.5})


def test_a_folder_is_made_unless_a_file_is_in_the_way(tmp_path):
    make_folder(tmp_path / "a" / "b", "--out")
    make_folder(tmp_path / "a" / "b", "--out")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"--out .*file is a file; name another folder"):
            make_folder(path, "--out")
    assert (tmp_path / "file").read_text() == "mine"
