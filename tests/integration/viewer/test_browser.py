"""The viewer in a real browser: what is in the files is on the screen."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import WorldError
from pipeline.geometry.box import Box
from pipeline.viewer.colors import color_of
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.scene import Layer, LayerFormat, Scene
from pipeline.viewer.screenshot import BROWSER_NAMES, take_screenshot
from pipeline.viewer.server import serve
from pipeline.viewer.state import SEGMENTATION_ALPHA

BROWSER = next((path for name in BROWSER_NAMES if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH (apt-get install chromium)"),
]
VOXEL = (30.0, 8.0, 8.0)
SIZE = (600, 400)


def make_scene(volumes, name: str, layer_format: LayerFormat, roi: Box | None = None) -> Scene:
    image = Layer("em", "image", str(volumes.image), "zarr", VOXEL, value_range=(0, 255))
    labels = Layer("seg", "segmentation", str(getattr(volumes, name)), layer_format, VOXEL)
    return Scene((image, labels), volumes.ids_zyx.shape, VOXEL, roi=roi)


def expected_rgb(segment: int, grey: int) -> np.ndarray:
    color = color_of(np.array(segment, dtype=np.uint64))
    return SEGMENTATION_ALPHA * color + (1 - SEGMENTATION_ALPHA) * grey


def share_of(picture: np.ndarray, rgb: np.ndarray) -> float:
    """Share of pixels within 3 grey values of a color."""
    return float((np.abs(picture[..., :3].astype(float) - rgb).max(axis=-1) <= 3).mean())


@pytest.mark.parametrize(
    ("name", "layer_format"),
    [
        ("labels", "zarr"),
        ("sharded_labels", "zarr"),
        ("precomputed", "precomputed"),
        ("sharded_precomputed", "precomputed"),
        ("packed_shards", "precomputed"),
        ("plain", "zarr"),
    ],
)
def test_every_segment_is_seen_in_its_color_over_the_image(
    volumes, name: str, layer_format: LayerFormat, tmp_path: Path
) -> None:
    path = tmp_path / "view.png"
    with serve(make_scene(volumes, name, layer_format), layout="xy") as server:
        assert take_screenshot(server, path, size=SIZE, timeout_s=120) == path
    picture = np.asarray(Image.open(path).convert("RGB"))
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    shown = volumes.ids_zyx[6]
    for segment in np.unique(shown):
        in_file = (shown == segment).mean() * 0.92 * 0.92 * (83 * 400) / (61 * 600)
        assert share_of(picture, expected_rgb(int(segment), grey=100)) == pytest.approx(in_file, rel=0.15)


def test_a_page_that_cannot_load_its_data_says_how_far_it_came(volumes, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(volumes.precomputed, broken)
    for chunk in broken.glob("*/*.gz"):
        chunk.write_bytes(b"no gzip at all")
    layer = Layer("seg", "segmentation", str(broken), "precomputed", VOXEL)
    with (
        serve(Scene((layer,), volumes.ids_zyx.shape, VOXEL), layout="xy") as server,
        pytest.raises(WorldError, match=r"0 of \d+ chunks were there"),
    ):
        take_screenshot(server, tmp_path / "view.png", size=SIZE, timeout_s=15)


def test_voxels_read_by_a_function_are_drawn_in_the_same_places(volumes, tmp_path: Path) -> None:
    image = np.full(volumes.ids_zyx.shape, 100, dtype=np.uint8)
    pair = (
        Layer("em", "image", "x.tif", "reader", VOXEL, (0, 255), reader=BoxReader.of_array(image, VOXEL)),
        Layer("seg", "segmentation", "y.h5", "reader", VOXEL, reader=BoxReader.of_array(volumes.ids_zyx, VOXEL)),
    )
    pictures = []
    for layers in (pair, (pair[0], Layer("seg", "segmentation", str(volumes.precomputed), "precomputed", VOXEL))):
        path = tmp_path / "view.png"
        with serve(Scene(layers, volumes.ids_zyx.shape, VOXEL), layout="xy") as server:
            take_screenshot(server, path, size=SIZE, timeout_s=120)
        pictures.append(np.asarray(Image.open(path).convert("RGB")).astype(int))
    assert (np.abs(pictures[0] - pictures[1]).max(axis=-1) > 3).mean() < 0.001
    assert share_of(pictures[0], expected_rgb(2**40 + 3, grey=100)) > 0.1


def test_a_layer_moved_by_whole_voxels_is_drawn_there(volumes, tmp_path: Path) -> None:
    labels = Layer("seg", "segmentation", str(volumes.precomputed), "precomputed", VOXEL, shift_zyx_nm=(0, 0, 8.0 * 20))
    pictures = []
    for layer in (labels, Layer("seg", "segmentation", str(volumes.precomputed), "precomputed", VOXEL)):
        path = tmp_path / "view.png"
        with serve(Scene((layer,), volumes.ids_zyx.shape, VOXEL), layout="xy") as server:
            take_screenshot(server, path, size=SIZE, timeout_s=120)
        pictures.append(np.asarray(Image.open(path).convert("RGB")).astype(int))
    moved, still = pictures
    pixels = round(20 * 0.92 * SIZE[1] / 61)
    inner = slice(200, 300)  # columns that stay inside the volume in both
    assert np.abs(moved[100:150, inner] - still[100:150, 200 - pixels : 300 - pixels]).mean() < 4
    assert np.abs(moved[100:150, inner] - still[100:150, inner]).mean() > 10


def test_the_page_loads_without_a_failed_request(volumes, watched_page) -> None:
    roi = Box((2, 10, 10), (11, 50, 70))
    with serve(make_scene(volumes, "precomputed", "precomputed", roi)) as server, watched_page() as watched:
        chunks = {f"{server.data_url('em')}/0/c/0/1/2", f"{server.data_url('seg')}/8_8_30/64-83_32-61_0-13"}
        watched.page.goto(server.url)
        watched.page.wait_for_selector("text=seg")
        watched.wait_until(lambda urls: chunks <= set(urls))
    assert watched.refused == []
    assert watched.failures == []
    asked = {url.split("/")[2] for _, url in watched.answers if url.startswith("http")}
    assert asked == {f"127.0.0.1:{server.port}"}
