"""Every kind of row from start to result, on volumes so small that each takes seconds."""

import dataclasses
import json

import pytest
import sets
from row_process import PROBABILITIES_FILE, forget_other_recipe, run_row
from rows import Row
from sets import ClassSource, PhantomPart, SetSpec

pytestmark = pytest.mark.slow
MINUTES = 0.003
TINY = SetSpec(
    title="tiny",
    classes=(ClassSource("neurite", "neurites"), ClassSource("tissue", "neurites", objects=False)),
    voxel_size_zyx_nm=(10.0, 10.0, 10.0),
    working_zyx_nm=(10.0, 10.0, 10.0),
    min_object_voxels=3,
    base=False,
    train_parts=(PhantomPart(7, (11, 37, 41)),),
    choose_part=PhantomPart(8, (3, 37, 41)),
    report_part=PhantomPart(9, (5, 37, 41)),
)


@pytest.fixture
def result_of(monkeypatch, tmp_path):
    pytest.importorskip("monai", reason="the bench extra is not installed")
    monkeypatch.setitem(sets.SETS, "tiny", TINY)
    monkeypatch.setitem(sets.SETS, "tiny-base", dataclasses.replace(TINY, base=True))

    def run(method, name="tiny", percent=20):
        row = Row("S", name, method, percent, 0)
        (tmp_path / row.name).mkdir()
        forget_other_recipe(tmp_path / row.name, "digest")
        result = run_row(row, MINUTES, tmp_path)
        json.dumps(result)
        assert (tmp_path / row.name / PROBABILITIES_FILE).exists()
        return result

    return run


@pytest.mark.parametrize("method", ["none", "two-stage", "memory", "unet3d", "unet2d", "memory-one-direction"])
def test_a_row_gives_every_score_and_cost(result_of, method):
    result = result_of(method)
    assert result["training"]["steps"] >= 1
    assert result["training"]["start"] == {"from": "random weights"}
    assert result["labelled_slices"] == {"phantom-7": (2, 8)}
    assert result["parameters"] > 1e6
    assert {"iou", "hd95_nm", "z_consistency", "ap50", "voi_split_bits"} <= result["classes"]["neurite"][
        "report"
    ].keys()
    assert "ap50" not in result["classes"]["tissue"]["report"]


@pytest.mark.parametrize("method", ["none", "lora-4"])
def test_a_row_with_a_base_says_what_started_from_it(result_of, method):
    start = result_of(method, "tiny-base")["training"]["start"]
    assert start["from"] == "phantom"
    assert start["tensors_from_base"] > 200
    assert "adapter.class_query" in start["tensors_random"]


def test_weights_that_are_there_are_read_and_not_trained_again(result_of, tmp_path):
    from recipes import row_digest

    result_of("memory")
    folder = tmp_path / "tiny_memory_020_s0"
    (folder / "digest.txt").write_text(row_digest(Row("S", "tiny", "memory", 20, 0), MINUTES))
    before = (folder / "best.safetensors").stat().st_mtime_ns
    result = result_of("sam2-slices")
    assert result["training"]["weights_of"] == "tiny_memory_020_s0"
    assert (folder / "best.safetensors").stat().st_mtime_ns == before
