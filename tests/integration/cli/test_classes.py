"""A model of two classes, one of them semantic, through every command: `OUTPUT/<class>`, ids unique over both."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from pipeline.cli import main
from pipeline.geometry import Box
from pipeline.storage import ImageSpec, ImageWriter, open_volume
from pipeline.viewer.screenshot import BROWSER_NAMES
from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import build_model

SHAPE = (11, 67, 71)
SIZE_NM = (8.0, 8.0, 8.0)
CLASSES = ("mitochondrion", "glia")


def write_model(path, image_zyx):
    """Random weights, and thresholds that a third of the voxels pass: what the classes mean does not matter here."""
    torch.manual_seed(3)
    small = {"embed_dim": 8, "d_model": 64, "memory_dim": 16, "memory_slots": 3, "decoder_mlp_dim": 32}
    config = ModelConfig.of({**small, "num_classes": 2})
    network = build_model(config).eval()
    padded = np.pad(image_zyx, [(0, 0), (0, 96 - SHAPE[1]), (0, 96 - SHAPE[2])], mode="reflect")
    with torch.inference_mode():
        logits = network.forward_window(torch.from_numpy(padded[None] / np.float32(255))).refined_BTKHW
    thresholds = tuple(float(logits[:, :, channel].sigmoid().quantile(0.67)) for channel in range(2))
    header = CheckpointHeader(
        name="two",
        model=config,
        classes=CLASSES,
        thresholds=thresholds,
        working_voxel_size_zyx_nm=SIZE_NM,
        accepted_voxel_size_nm=(4.0, 16.0),
        window_slices=5,
        warm_up_slices=2,
        tile_side=64,
        tile_overlap=13,
        batch_tiles=3,
    )
    save_checkpoint(path, network, header)


def write_image(path):
    noise = np.random.default_rng(8).integers(0, 256, (3, 9, 9)).repeat(4, 0).repeat(8, 1).repeat(8, 2)
    voxels = np.ascontiguousarray(noise[: SHAPE[0], : SHAPE[1], : SHAPE[2]].astype(np.uint8))
    writer = ImageWriter(ImageSpec(str(path), SHAPE, "uint8", SIZE_NM, chunk_zyx=(16, 32, 32)))
    writer.create()
    for index in range(len(writer.grid())):
        box = writer.grid().box(index)
        writer.write(box, np.ascontiguousarray(voxels[box.slices]))
    return voxels


def call(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["sam4em", *map(str, arguments)])
        main.app(standalone_mode=False)


def read(path):
    return open_volume(str(path), kind="labels").read(Box.of_shape(SHAPE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of two classes by two workers, in several blocks, in both formats."""
    path = tmp_path_factory.mktemp("classes")
    write_model(path / "two.safetensors", write_image(path / "em.zarr"))
    values = {
        "image": {"url": str(path / "em.zarr")},
        "outputs": [{"url": str(path / name), "chunk_zyx": [16, 32, 32]} for name in ("out.zarr", "out")],
        "segmenter": {"kind": "sam4em", "model": str(path / "two.safetensors")},
        "classes": {"mitochondrion": {"min_size_nm3": 0}, "glia": {"kind": "semantic", "min_size_nm3": 0}},
        "plan": {"block_zyx": [16, 64, 64]},
        "cluster": {"workers": 2},
    }
    (path / "run.yaml").write_text(yaml.safe_dump(values))
    call("run", path / "run.yaml")
    return path


def test_every_class_is_a_volume_of_its_own(folder):
    for name in CLASSES:
        labels = read(folder / "out.zarr" / name)
        np.testing.assert_array_equal(labels, read(folder / "out" / name))
        assert labels.dtype == np.uint64
        assert labels.any()
    mitochondria, glia = (np.unique(read(folder / "out.zarr" / name)) for name in CLASSES)
    assert len(mitochondria) > 2
    assert len(glia) == 2, "a semantic class has one id"
    assert set(mitochondria) & set(glia) == {0}


def test_the_instance_table_names_the_class_of_every_id(folder):
    table = pq.read_table(folder / "out.zarr.run" / "segments.parquet").to_pydict()
    for name in CLASSES:
        ids, counts = np.unique(read(folder / "out.zarr" / name), return_counts=True)
        listed = [row for row, kind in enumerate(table["class"]) if kind == name]
        assert [table["id"][row] for row in listed] == ids[1:].tolist()
        assert [table["voxels"][row] for row in listed] == counts[1:].tolist()
        info = json.loads((folder / "out" / name / "segment_properties" / "info").read_text())
        assert info["inline"]["ids"] == [str(number) for number in ids[1:]]


def test_status_verify_and_the_same_command_again(command, folder):
    assert json.loads(command("status", folder / "run.yaml", "--json").out)["complete"] is True
    verified = json.loads(command("verify", folder / "run.yaml", "--json").out)
    # Two outputs of two classes, each with levels of its own.
    assert {name for name in verified["write_units"] if name.endswith("/0")} == {f"output-{k}/0" for k in range(4)}
    again = command("run", folder / "run.yaml")
    assert (again.code, "already complete" in again.out) == (0, True)


def test_a_lost_block_of_one_class_is_found_and_made_again(command, folder, tmp_path):
    """In a copy elsewhere, so that the other tests keep their run."""
    target = tmp_path / "copy"
    shutil.copytree(folder, target)
    text = (target / "run.yaml").read_text().replace(str(folder), str(target))
    (target / "run.yaml").write_text(text)
    shutil.rmtree(target / "out.zarr.run")
    for name in ("out.zarr", "out"):
        shutil.rmtree(target / name)
    assert command("run", target / "run.yaml").code == 0
    before = read(target / "out.zarr" / "glia")
    chunk = next(path for path in sorted((target / "out.zarr" / "glia" / "0" / "c").rglob("*")) if path.is_file())
    chunk.unlink()
    lost = command("verify", target / "run.yaml")
    assert lost.code != 0
    assert "glia" in lost.err
    assert command("run", target / "run.yaml").code == 0
    assert command("verify", target / "run.yaml").code == 0
    np.testing.assert_array_equal(read(target / "out.zarr" / "glia"), before)


def test_one_class_of_the_model_alone_is_its_own_output(command, folder, in_this_process):
    model = folder / "two.safetensors"
    ended = command(
        "segment", folder / "em.zarr", "alone.zarr", "--model", model, "--classes", "glia", "--min-size-nm3", "0"
    )
    assert ended.code == 0
    labels = read("alone.zarr")
    np.testing.assert_array_equal(labels > 0, read(folder / "out.zarr" / "glia") > 0)
    assert len(np.unique(labels)) > 2, "by default a class is instances"


def test_evaluate_takes_one_class(command, folder):
    volume = folder / "out.zarr" / "glia"
    assert command("evaluate", "--prediction", volume, "--truth", volume, "--json", "s.json").code == 0
    assert json.loads(Path("s.json").read_text())["iou"] == 1.0


def test_clean_takes_the_intermediates_and_leaves_both_classes(command, folder):
    before = [read(folder / "out.zarr" / name) for name in CLASSES]
    assert command("verify", folder / "run.yaml").code == 0
    assert command("clean", folder / "run.yaml").code == 0
    for name, labels in zip(CLASSES, before, strict=True):
        np.testing.assert_array_equal(read(folder / "out.zarr" / name), labels)


@pytest.mark.browser
@pytest.mark.skipif(not any(map(shutil.which, BROWSER_NAMES)), reason="no Chromium on PATH (apt-get install chromium)")
def test_the_viewer_shows_a_layer_per_class(command, folder):
    ended = command("view", folder / "run.yaml", "--screenshot", "view.png")
    assert ended.code == 0
    assert Path("view.png").stat().st_size > 20_000
