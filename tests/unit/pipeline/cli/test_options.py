import json

import pytest

from pipeline.cli.options import echo_table, parse_triple, parse_voxels
from pipeline.errors import UserError


def test_triples():
    assert parse_triple("50,4,4.5", "--voxel-size") == (50.0, 4.0, 4.5)
    assert parse_triple(None, "--voxel-size") is None
    assert parse_voxels("64,480,481", "--shape") == (64, 480, 481)


@pytest.mark.parametrize("text", ["1,2", "1,2,x", "0,1,1", "1,-2,3", "nan,1,1", "inf,1,1", ""])
def test_what_is_no_triple_names_the_option(text):
    with pytest.raises(UserError, match="--voxel-size"):
        parse_triple(text, "--voxel-size")


def test_voxels_are_whole():
    with pytest.raises(UserError, match="whole numbers"):
        parse_voxels("64,480,480.5", "--shape")


def test_tables_go_to_stdout(capsys):
    rows = {"blocks": 12345, "share": 0.25, "done": True, "tasks": {"label": 3}}
    echo_table(rows, "plan", as_json=True)
    assert json.loads(capsys.readouterr().out) == rows
    echo_table(rows, "plan", as_json=False)
    shown = capsys.readouterr()
    assert "12,345" in shown.out
    assert "label: 3" in shown.out
    assert shown.err == ""


def test_rows_within_rows_are_a_table_of_one_line_each(capsys):
    rows = {"complete": False, "stages": {"label": {"done": 3, "to do": 4}, "match": {"done": 0, "to do": 12}}}
    echo_table(rows, "out.zarr", as_json=False)
    lines = capsys.readouterr().out.splitlines()
    (label,) = [line for line in lines if "label" in line]
    assert [word for word in label.split() if word.isdigit()] == ["3", "4"]
    (head,) = [line for line in lines if "to do" in line]
    assert "done" in head
