"""The commands one after the other on a small volume with `threshold`: run, status, verify, evaluate, plan, clean."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import ndimage

from pipeline.cli import main
from pipeline.geometry import Box
from pipeline.run.show import draw_run_overview, scene_of_output
from pipeline.storage import ImageSpec, ImageWriter, open_volume

SHAPE = (37, 70, 83)
SIZE_NM = (10.0, 8.0, 8.0)


def bodies():
    noise = ndimage.gaussian_filter(np.random.default_rng(4).standard_normal(SHAPE), 3)
    return noise > np.quantile(noise, 0.85)


def write(url, voxels, kind):
    spec = ImageSpec(str(url), SHAPE, str(voxels.dtype), SIZE_NM, chunk_zyx=(16, 32, 32), kind=kind)
    writer = ImageWriter(spec)
    writer.create()
    for index in range(len(writer.grid())):
        box = writer.grid().box(index)
        writer.write(box, voxels[box.slices])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run: image, truth, both outputs."""
    path = tmp_path_factory.mktemp("whole")
    inside = bodies()
    write(path / "em.zarr", np.where(inside, np.uint8(200), np.uint8(40)), "image")
    truth = ndimage.label(inside)[0].astype(np.uint64)
    write(path / "truth.zarr", truth, "labels")
    values = {
        "image": {"url": str(path / "em.zarr")},
        "outputs": [
            {"url": str(path / "out.zarr"), "chunk_zyx": [16, 16, 16]},
            {"url": str(path / "out"), "chunk_zyx": [16, 16, 16]},
        ],
        "segmenter": {"kind": "threshold", "foreground": "bright"},
        "plan": {"block_zyx": [16, 32, 32]},
        "cluster": {"workers": 2},
    }
    (path / "run.yaml").write_text(yaml.safe_dump(values))
    call("run", str(path / "run.yaml"))
    return path


def call(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sam4em", *arguments])
        main.app(standalone_mode=False)


def test_both_outputs_are_the_truth_up_to_renaming(folder):
    truth = open_volume(str(folder / "truth.zarr"), kind="labels").read(Box.of_shape(SHAPE))
    found = open_volume(str(folder / "out.zarr"), kind="labels").read(Box.of_shape(SHAPE))
    other = open_volume(str(folder / "out"), kind="labels").read(Box.of_shape(SHAPE))
    np.testing.assert_array_equal(found, other)
    pairs = np.unique(np.stack([truth.ravel(), found.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_the_instance_table_is_what_the_volume_holds(folder):
    found = open_volume(str(folder / "out.zarr"), kind="labels").read(Box.of_shape(SHAPE))
    ids, counts = np.unique(found[found > 0], return_counts=True)
    table = pq.read_table(folder / "out.zarr.run" / "segments.parquet").to_pydict()
    assert table["id"] == ids.tolist()
    assert table["voxels"] == counts.tolist()
    assert table["volume_nm3"] == pytest.approx((counts * 640.0).tolist())
    z, y, x = np.nonzero(found == ids[0])
    assert (table["z0"][0], table["z1"][0]) == (z.min(), z.max() + 1)
    assert (table["x0"][0], table["x1"][0]) == (x.min(), x.max() + 1)
    assert table["centroid_y_nm"][0] == pytest.approx((y.mean() + 0.5) * 8)


def test_segment_properties_stand_beside_the_precomputed_volume(folder):
    info = json.loads((folder / "out" / "segment_properties" / "info").read_text())
    table = pq.read_table(folder / "out.zarr.run" / "segments.parquet").to_pydict()
    assert info["inline"]["ids"] == [str(number) for number in table["id"]]
    assert json.loads((folder / "out" / "info").read_text())["segment_properties"] == "segment_properties"


def test_the_same_command_again_has_nothing_to_do(folder, capsys):
    call("run", str(folder / "run.yaml"))
    assert "already complete" in capsys.readouterr().out


def test_status_tells_json(folder, capsys):
    call("status", str(folder / "out.zarr"), "--json")
    status = json.loads(capsys.readouterr().out)
    assert status["complete"] is True
    assert status["failed_tasks"] == {}


def test_evaluate_is_perfect_for_both_formats(folder, capsys):
    for name in ("out.zarr", "out"):
        scores = folder / f"{name}.json"
        call(
            "evaluate", "--prediction", str(folder / name), "--truth", str(folder / "truth.zarr"),
            "--json", str(scores), "--roi", "3:30,5:60,7:80",
        )  # fmt: skip
        values = json.loads(scores.read_text())
        assert (values["iou"], values["hd95_nm"], values["instances"]["ap75"]) == (1.0, 0.0, 1.0)
    assert "iou" in capsys.readouterr().out


def test_plan_measures_a_block(folder, capsys):
    call("plan", str(folder / "run.yaml"), "--json")
    planned = json.loads(capsys.readouterr().out)
    assert planned["blocks"] == 27
    assert planned["model_voxels_per_core_voxel"] > 1
    assert planned["seconds_per_task"]["label"]["mean"] > 0
    files = sum(1 for name in ("out.zarr", "out") for path in (folder / name).rglob("*") if path.is_file())
    assert files <= planned["files_written"] + 20


def test_the_scene_holds_image_and_both_outputs_on_one_grid(folder):
    scene = scene_of_output(str(folder / "out.zarr"), truth=str(folder / "truth.zarr"))
    assert [layer.name for layer in scene.layers] == ["image", "out.zarr", "out", "truth"]
    assert scene.layers[1].shift_zyx_nm == (0.0, 0.0, 0.0)
    assert scene.layers[2].shift_zyx_nm == (-5.0, -4.0, -4.0)


def test_an_overview_picture(folder):
    picture = draw_run_overview(str(folder / "em.zarr"), str(folder / "out.zarr"), folder / "overview.png")
    assert picture.stat().st_size > 10_000


def test_verify_then_clean(folder, capsys):
    call("verify", str(folder / "out.zarr"))
    assert json.loads((folder / "out.zarr" / "zarr.json").read_text())["attributes"]["sam4em"]["complete"] is True
    assert (folder / "out.zarr.run" / "scratch").exists()
    call("clean", str(folder / "run.yaml"))
    assert not (folder / "out.zarr.run" / "scratch" / "labels-object" / "c").exists()
    call("run", str(folder / "run.yaml"))
    assert "already complete" in capsys.readouterr().out
