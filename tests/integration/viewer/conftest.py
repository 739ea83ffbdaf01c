"""Small volumes in the three stored forms that the viewer shows, and a browser that is watched."""

from __future__ import annotations

import contextlib
import gzip
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.viewer.screenshot import BROWSER_NAMES, RENDER_FLAGS, SYSTEM_FLAGS, take_screenshot
from pipeline.viewer.server import serve

cloudvolume = pytest.importorskip("cloudvolume", reason="cloud-volume is not installed")

SHAPE_ZYX = (13, 61, 83)
VOXEL_SIZE_ZYX_NM = (30.0, 8.0, 8.0)
CHUNK_ZYX = (13, 32, 32)
GREY = 100


@dataclass(frozen=True)
class Volumes:
    """Where the volumes lie, and what is in them."""

    image: Path
    labels: Path
    precomputed: Path
    plain: Path
    sharded_labels: Path
    sharded_precomputed: Path
    packed_shards: Path
    ids_zyx: np.ndarray


def make_ids() -> np.ndarray:
    """Three objects with ids below and above 32 bits; every chunk holds a voxel that is not 0."""
    ids = np.full(SHAPE_ZYX, 7, dtype=np.uint64)
    ids[:, :, 29:53] = 2**40 + 3
    ids[:, 37:, 53:] = 11
    return ids


def write_ome_zarr(path: Path, data: np.ndarray, chunk: tuple[int, ...] = CHUNK_ZYX, shard=None) -> None:
    """Write one level of OME-Zarr 0.5, sharded on wish."""
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    transform = [{"type": "scale", "scale": list(VOXEL_SIZE_ZYX_NM)}]
    axes = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    multiscale = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": transform}], "name": "v"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    array = group.create_array(
        "0", shape=data.shape, chunks=chunk, shards=shard, dtype=data.dtype, dimension_names=["z", "y", "x"]
    )
    array[:] = data


def write_precomputed(path: Path, ids_zyx: np.ndarray, chunk: tuple[int, ...] = CHUNK_ZYX, sharded=False) -> None:
    """Write a precomputed segmentation: chunks that end in `.gz`, or shards."""
    info = cloudvolume.CloudVolume.create_new_info(
        num_channels=1,
        layer_type="segmentation",
        data_type="uint64",
        encoding="compressed_segmentation",
        resolution=[int(size) for size in VOXEL_SIZE_ZYX_NM[::-1]],
        voxel_offset=(0, 0, 0),
        volume_size=SHAPE_ZYX[::-1],
        chunk_size=chunk[::-1],
    )
    volume = cloudvolume.CloudVolume(f"file://{path}", info=info, compress=not sharded, progress=False)
    if sharded:
        volume.image.to_sharded(uncompressed_shard_bytesize=2**22)
    volume.commit_info()
    volume[:] = ids_zyx.transpose(2, 1, 0)[..., None]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    """Write an image of one grey value and the same labels in six ways."""
    import zarr

    folder = tmp_path_factory.mktemp("volumes")
    ids = make_ids()
    names = ("image.zarr", "labels.zarr", "labels", "plain.zarr", "sharded.zarr", "sharded", "packed")
    written = Volumes(*(folder / name for name in names), ids)
    write_ome_zarr(written.image, np.full(SHAPE_ZYX, GREY, dtype=np.uint8))
    write_ome_zarr(written.labels, ids)
    write_ome_zarr(written.sharded_labels, ids, chunk=(13, 16, 16), shard=(13, 64, 96))
    write_precomputed(written.precomputed, ids)
    write_precomputed(written.sharded_precomputed, ids, chunk=(16, 16, 16), sharded=True)
    write_precomputed(written.packed_shards, ids, chunk=(16, 16, 16), sharded=True)
    for shard in written.packed_shards.glob("*/*.shard"):  # as cloud-volume does when told to compress
        shard.with_name(f"{shard.name}.gz").write_bytes(gzip.compress(shard.read_bytes()))
        shard.unlink()
    plain = zarr.create_array(str(written.plain), shape=SHAPE_ZYX, chunks=CHUNK_ZYX, dtype="uint64", zarr_format=2)
    plain[:] = ids
    return written


@dataclass
class Watched:
    """A page, and what became of everything that it asked for."""

    page: Any
    answers: list[tuple[int, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def wait_until(self, has_come) -> None:
        """Wait until `has_come` of the addresses answered so far; ended by the timeout of wait_for_event."""
        while not has_come([url for _, url in self.answers]):
            self.page.wait_for_event("response", timeout=60_000)

    @property
    def refused(self) -> list[tuple[int, str]]:
        """What was answered with an error."""
        return [(status, url) for status, url in self.answers if status >= 400]


@pytest.fixture
def watched_page():
    """Open a page in the system's browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(path for name in BROWSER_NAMES if (path := shutil.which(name)))
    flags = [flag for flag in (*RENDER_FLAGS, *SYSTEM_FLAGS) if not flag.startswith("--headless")]

    @contextlib.contextmanager
    def watch():
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=program, args=flags)
            watched = Watched(browser.new_page(viewport={"width": 800, "height": 600}))
            page = watched.page
            page.on("response", lambda response: watched.answers.append((response.status, response.url)))
            page.on("requestfailed", lambda request: watched.failures.append(request.url))
            page.on("pageerror", lambda error: watched.failures.append(str(error)))
            page.on("console", lambda said: watched.failures.append(said.text) if said.type == "error" else None)
            yield watched
            browser.close()

    return watch


@pytest.fixture
def colors_in_3d(tmp_path):
    """Draw a scene's objects alone; gives their pixels' red, green, blue, and how many pixels the picture has."""

    def draw(scene) -> tuple[np.ndarray, int]:
        path = tmp_path / "view.png"
        with serve(scene, layout="3d") as server:
            with server.viewer.txn() as state:
                state.show_slices = False
                state.show_axis_lines = False
            take_screenshot(server, path, size=(500, 400), timeout_s=120)
        picture = np.asarray(Image.open(path).convert("RGB")).astype(float)
        return picture[picture.max(axis=-1) > 60], picture[..., 0].size

    return draw
