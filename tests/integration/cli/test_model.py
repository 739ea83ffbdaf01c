"""`sam4em segment` with a real model, the shipped `phantom`, on volumes of a few sections."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.cli import main
from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, render
from pipeline.run.compare import evaluate_stored
from pipeline.storage import open_volume
from pipeline.viewer.screenshot import BROWSER_NAMES

# A mitochondrion fills about a third of this piece of tissue.
START_NM = (120.0, 0.0, 1280.0)


def draw(shape_zyx, size_nm, layer):
    """Draw the piece of tissue at a voxel size."""
    spec = PhantomSpec(seed=5, voxel_size_zyx_nm=(size_nm, size_nm, size_nm))
    box = Box.of_shape(shape_zyx, tuple(round(start / size_nm) for start in START_NM))
    return getattr(render(spec, box, want=(layer,)), f"{layer}_zyx")


def read(path):
    volume = open_volume(str(path), kind="labels")
    return volume, volume.read(Box.of_shape(volume.info.shape_zyx))


def overlap(one, two):
    return (one & two).sum() / (one | two).sum()


def test_the_output_has_the_voxel_size_asked_for_and_lies_on_the_image(command, write_volume, in_this_process):
    """An image of 5 nm: written at 5 nm by itself, and at 10 nm."""
    image = write_volume("em.zarr", draw((13, 121, 127), 5.0, "image"), size_nm=(5.0, 5.0, 5.0))
    call = ["segment", image, "--model", "phantom", "--min-size-nm3", "0"]
    assert command(*call, "fine.zarr").code == 0
    assert command(*call, "coarse.zarr", "--also", "coarse", "--output-voxel-size", "10,10,10").code == 0
    (fine, at_5), (coarse, at_10), (other, also) = read("fine.zarr"), read("coarse.zarr"), read("coarse")
    assert (fine.info.shape_zyx, fine.require_voxel_size()) == ((13, 121, 127), (5.0, 5.0, 5.0))
    assert (coarse.info.shape_zyx, coarse.require_voxel_size()) == ((7, 61, 64), (10.0, 10.0, 10.0))
    np.testing.assert_array_equal(at_10, also)
    # The lower corners meet: the first center of the coarse volume lies half a voxel of 5 nm further.
    assert coarse.info.origin_zyx_nm == fine.info.origin_zyx_nm == open_volume(str(image)).info.origin_zyx_nm
    assert other.info.origin_zyx_nm == (0.0, 0.0, 0.0)
    inside = at_10 > 0
    assert 0.03 < inside.mean() < 0.9
    wide = np.pad(at_5 > 0, [(0, 1)] * 3, mode="edge").reshape(7, 2, 61, 2, 64, 2)
    halved = wide.mean(axis=(1, 3, 5)) >= 0.5
    assert overlap(inside, halved) > 0.8
    for axis in range(3):
        before, after = (overlap(inside, np.roll(halved, step, axis)) for step in (-1, 1))
        assert max(before, after) < overlap(inside, halved) - 0.05
        # Half a voxel off would favor one direction.
        assert abs(before - after) < 0.07
    scores = evaluate_stored("coarse.zarr", "fine.zarr")
    assert scores.roi.shape == (13, 121, 127)
    assert scores.binary.iou > 0.75


def test_plan_carries_out_blocks_of_the_model_on_another_lattice(command, write_volume, in_this_process):
    """An image of 5 nm, a model of 8 nm: the probe takes the model block behind each label block."""
    image = write_volume("em.zarr", draw((13, 121, 127), 5.0, "image"), size_nm=(5.0, 5.0, 5.0))
    values = {
        "image": {"url": str(image)},
        "outputs": [{"url": "out.zarr", "chunk_zyx": [8, 64, 64], "num_mips": 2}],
        "segmenter": {"kind": "sam4em", "model": "phantom", "device": "cpu"},
        "plan": {"block_zyx": [8, 64, 64]},
    }
    Path("run.yaml").write_text(yaml.safe_dump(values))
    done = command("plan", "run.yaml", "--probe", "2", "--price", "cpu_hour=1", "--json")
    assert done.code == 0
    report = json.loads(done.out)
    assert set(report["seconds_per_task"]) == {"predict", "label", "relabel", "pyramid"}
    assert all(figure["mean"] > 0 for figure in report["seconds_per_task"].values())
    assert report["cost"]["cpu_hour"]["mean"] == report["cpu_worker_hours"]["mean"] > 0
    assert not Path("out.zarr").exists()


def test_outside_the_range_of_the_model_on_demand_only(command, write_volume, in_this_process):
    image = write_volume("em.zarr", draw((5, 31, 37), 20.0, "image"), size_nm=(20.0, 20.0, 20.0))
    call = ["segment", image, "out.zarr", "--model", "phantom", "--min-size-nm3", "0"]
    refused = command(*call)
    assert refused.code == 2
    assert "--force-voxel-size" in refused.err
    assert not Path("out.zarr").exists()
    assert command(*call, "--force-voxel-size").code == 0
    volume, labels = read("out.zarr")
    assert (labels.shape, volume.require_voxel_size()) == ((5, 31, 37), (20.0, 20.0, 20.0))
    assert labels.any()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the commands of a user leave: a phantom, drawn and segmented by worker processes."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        for arguments in (
            ["phantom", path, "--shape", "24,160,160", "--voxel-size", "10,10,10", "--seed", "5",
             "--layers", "image,mitochondria", "--workers", "1"],
            ["segment", path / "image.zarr", path / "out.zarr", "--also", path / "out", "--model", "phantom",
             "--workers", "1"],
        ):  # fmt: skip
            patch.setattr(sys, "argv", ["sam4em", *map(str, arguments)])
            main.app(standalone_mode=False)
    return path


def test_a_segmented_phantom_is_verified_and_scored(command, folder):
    output = folder / "out.zarr"
    status = json.loads(command("status", output, "--json").out)
    assert (status["complete"], status["verified"], status["failed_tasks"]) == (True, False, {})
    assert command("verify", output).code == 0
    assert json.loads(command("status", output, "--json").out)["verified"] is True
    (_, zarr_labels), (_, precomputed_labels) = read(output), read(folder / "out")
    np.testing.assert_array_equal(zarr_labels, precomputed_labels)
    scored = command(
        "evaluate", "--prediction", output, "--truth", folder / "mitochondria.zarr", "--json", "scores.json"
    )
    assert scored.code == 0
    scores = json.loads(Path("scores.json").read_text())
    assert scores["iou"] > 0.5
    assert scores["num_predicted"] == len(np.unique(zarr_labels)) - 1 > 0


def test_the_same_command_again_has_nothing_to_do(command, folder):
    ended = command(
        "segment", folder / "image.zarr", folder / "out.zarr", "--also", folder / "out", "--model", "phantom",
        "--workers", "2",
    )  # fmt: skip
    assert ended.code == 0
    assert "already complete" in ended.out


@pytest.mark.browser
@pytest.mark.skipif(not any(map(shutil.which, BROWSER_NAMES)), reason="no Chromium on PATH (apt-get install chromium)")
def test_a_picture_of_it(command, folder):
    ended = command("view", folder / "out.zarr", "--truth", folder / "mitochondria.zarr", "--screenshot", "view.png")
    assert ended.code == 0
    picture = np.asarray(Image.open("view.png").convert("RGB"))
    assert picture.shape == (1200, 1600, 3)
    # The image is grey and the frame around it yellow; what has another color is the segmentation.
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    is_yellow = (red > 180) & (green > 180) & (blue < 120)
    colorful = (np.ptp(picture.astype(int), axis=-1) > 40) & ~is_yellow
    assert colorful.mean() > 0.005
