"""Meshes, marks and picking in a real browser."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.geometry.box import Box
from pipeline.labels.surfaces import cut_fragments, join_fragments
from pipeline.storage import StorageOptions
from pipeline.storage.meshes import encode_levels, mesh_info, mesh_of, write_meshes
from pipeline.storage.shapes import attach_shapes, write_shape_info
from pipeline.viewer.colors import color_of
from pipeline.viewer.scene import Layer, Marks, Scene
from pipeline.viewer.screenshot import BROWSER_NAMES
from pipeline.viewer.server import ViewerServer, serve

BROWSER = next((path for name in BROWSER_NAMES if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH (apt-get install chromium)"),
]
VOXEL = (30.0, 8.0, 8.0)
SEGMENT = 2**40 + 3


@pytest.fixture(scope="module")
def meshes(volumes, tmp_path_factory) -> Path:
    """The mesh of one segment, in a folder of its own."""
    url = str(tmp_path_factory.mktemp("meshes") / "labels.zarr.mesh")
    fragments = cut_fragments(np.pad(volumes.ids_zyx, 1), (-1, -1, -1), VOXEL, 8.0)
    surface = join_fragments([fragments.of(fragments.ids.tolist().index(SEGMENT))])
    mesh = mesh_of((surface.vertices_zyx + 0.5) * VOXEL, surface.triangles)
    info = mesh_info("multiresolution", SEGMENT, 1024)
    write_shape_info(url, info)
    write_meshes(url, info, {SEGMENT: encode_levels(SEGMENT, [mesh, mesh], 8.0)}, StorageOptions())
    return Path(url)


def make_scene(volumes, meshes: Path, layer_format: str) -> Scene:
    image = Layer("em", "image", str(volumes.image), "zarr", VOXEL, value_range=(0, 255))
    if layer_format == "zarr":
        shift = (-15.0, -4.0, -4.0)  # an OME-Zarr without translation has its first center at 0
        labels = Layer(
            "seg",
            "segmentation",
            str(volumes.labels),
            "zarr",
            VOXEL,
            mesh_location=str(meshes),
            shape_shift_zyx_nm=shift,
            selected=(SEGMENT,),
        )
    else:
        folder = meshes.parent / "precomputed"
        if not folder.exists():
            shutil.copytree(volumes.precomputed, folder)
            shutil.copytree(meshes, folder / "mesh")
            attach_shapes(str(folder), "mesh")
        labels = Layer("seg", "segmentation", str(folder), "precomputed", VOXEL, selected=(SEGMENT,))
    marks = Marks("blocks", ((Box((0, 0, 0), (13, 32, 32)), "block 0"),), VOXEL, visible=True)
    return Scene((image, labels), volumes.ids_zyx.shape, VOXEL, marks=(marks,))


@pytest.mark.parametrize("layer_format", ["zarr", "precomputed"])
def test_the_mesh_is_drawn_in_the_color_of_its_segment(volumes, meshes, layer_format, colors_in_3d) -> None:
    bright, num_pixels = colors_in_3d(make_scene(volumes, meshes, layer_format))
    color = color_of(np.array(SEGMENT, np.uint64)).astype(float)
    # Light changes how bright a face is, not its color.
    cosine = bright @ color / np.linalg.norm(bright, axis=1) / np.linalg.norm(color)
    assert (cosine > 0.995).sum() / num_pixels > 0.05


def test_the_segment_under_the_cursor_is_the_id_in_the_file(volumes, meshes, watched_page) -> None:
    with serve(make_scene(volumes, meshes, "precomputed"), layout="xy") as server, watched_page() as watched:
        asked, picked = _asked_for(server)
        page = watched.page
        page.goto(server.url)
        canvas = page.locator(".neuroglancer-rendered-data-panel").first.bounding_box(timeout=60_000)
        found = set()
        watched.wait_until(lambda urls: any(url.endswith("/8_8_30/64-83_32-61_0-13") for url in urls))
        for across in np.linspace(0.1, 0.9, 9):
            page.mouse.move(canvas["x"] + across * canvas["width"], canvas["y"] + 0.75 * canvas["height"])
            place, segment = _ask(page, asked, picked)
            if segment is not None:
                x, y, z = (int(np.floor(at)) for at in place)
                assert segment == int(volumes.ids_zyx[z, y, x])
                found.add(segment)
    assert found == {7, SEGMENT, 11}
    assert watched.refused == []
    # The page does not wait for the answer to a pressed key.
    assert [failure for failure in watched.failures if "/action/" not in failure] == []


def _asked_for(server: ViewerServer) -> tuple[threading.Event, list]:
    """Let the key `p` tell what lies under the cursor."""
    asked, picked = threading.Event(), []

    def tell(state) -> None:
        picked.append((state.mouse_voxel_coordinates, state.selected_values["seg"].value))
        asked.set()

    server.viewer.actions.add("tell", tell)
    with server.viewer.config_state.txn() as config:
        config.input_event_bindings.viewer["keyp"] = "tell"
    return asked, picked


def _ask(page, asked: threading.Event, picked: list) -> tuple:
    """Press the key until something lies under the cursor: a chunk that has come is not drawn at once."""
    for _ in range(20):
        asked.clear()
        page.keyboard.press("p")
        assert asked.wait(30)
        if picked[-1][1] is not None:
            break
    return picked[-1]
