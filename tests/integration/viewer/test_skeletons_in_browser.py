"""Skeletons in a real browser: they are asked for, given, and drawn in the color of their segment."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.storage import StorageOptions
from pipeline.storage.shapes import attach_shapes, write_shape_info, write_shard
from pipeline.storage.skeletons import encode_skeleton, skeleton_info
from pipeline.viewer.colors import color_of
from pipeline.viewer.scene import Layer, Scene
from pipeline.viewer.screenshot import BROWSER_NAMES
from pipeline.viewer.server import serve

BROWSER = next((path for name in BROWSER_NAMES if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH (apt-get install chromium)"),
]
VOXEL = (30.0, 8.0, 8.0)
SEGMENT = 2**40 + 3


@pytest.fixture(scope="module")
def skeletons(tmp_path_factory) -> Path:
    """The skeleton of one segment, in a folder of its own: a path up and down through its middle."""
    url = str(tmp_path_factory.mktemp("skeletons") / "labels.zarr.skeletons")
    info = skeleton_info("sharded", SEGMENT, 1024)
    write_shape_info(url, info)
    steps = np.linspace(0, 1, 200)
    places = np.stack([390 * steps, 480 * np.abs(np.sin(20 * steps)), 230 + 190 * steps], axis=1)
    edges = np.stack([np.arange(199), np.arange(1, 200)], axis=1).astype(np.uint32)
    data = encode_skeleton(places, edges, np.full(200, 40, np.float32))
    write_shard(url, info, {SEGMENT: data}, StorageOptions())
    return Path(url)


def make_scene(volumes, skeletons: Path, layer_format: str) -> Scene:
    image = Layer("em", "image", str(volumes.image), "zarr", VOXEL, value_range=(0, 255))
    location, added = str(volumes.labels), {"skeleton_location": str(skeletons)}
    if layer_format == "precomputed":
        folder = skeletons.parent / "precomputed"
        if not folder.exists():
            shutil.copytree(volumes.precomputed, folder)
            shutil.copytree(skeletons, folder / "skeletons")
            attach_shapes(str(folder), "skeletons")
        location, added = str(folder), {}
    labels = Layer("seg", "segmentation", location, layer_format, VOXEL, selected=(SEGMENT,), **added)
    return Scene((image, labels), volumes.ids_zyx.shape, VOXEL)


@pytest.mark.parametrize("layer_format", ["zarr", "precomputed"])
def test_the_skeleton_is_drawn_in_the_color_of_its_segment(volumes, skeletons, layer_format, colors_in_3d) -> None:
    bright, _ = colors_in_3d(make_scene(volumes, skeletons, layer_format))
    color = color_of(np.array(SEGMENT, np.uint64)).astype(float)
    cosine = bright @ color / np.linalg.norm(bright, axis=1) / np.linalg.norm(color)
    assert (cosine > 0.99).sum() > 200


@pytest.mark.parametrize("layer_format", ["zarr", "precomputed"])
def test_no_request_for_skeletons_fails(volumes, skeletons, layer_format, watched_page) -> None:
    with serve(make_scene(volumes, skeletons, layer_format), layout="3d") as server, watched_page() as watched:
        watched.page.goto(server.url)
        # Index, then the skeleton itself.
        watched.wait_until(lambda urls: sum(url.endswith(".shard") for url in urls) >= 3)
    assert watched.refused == []
    assert watched.failures == []
