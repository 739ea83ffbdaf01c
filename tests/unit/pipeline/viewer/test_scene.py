from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.scene import Layer, Scene

VOXEL = (30.0, 8.0, 8.0)
READER = BoxReader.of_array(np.zeros((2, 3, 5), np.uint8), VOXEL)


def layer(name: str = "image", location: str = "/data/image.zarr") -> Layer:
    return Layer(name, "image", location, "zarr", VOXEL)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/image.zarr", "/data/image.zarr"),
        ("image.zarr/raw", "image.zarr/raw"),
        ("file:///data/a%20b", "/data/a b"),
        ("s3://bucket/image.zarr", None),
        ("https://host/image", None),
    ],
)
def test_local_paths_are_told_from_urls(location: str, path: str | None) -> None:
    assert layer(location=location).local_path == (None if path is None else Path(path))


def test_a_reader_has_no_folder() -> None:
    assert Layer("image", "image", "stack.tif", "reader", VOXEL, reader=READER).local_path is None


def test_the_center_is_in_voxels_of_the_volume() -> None:
    assert Scene((layer(),), (13, 61, 83), VOXEL, start_zyx=(5, 7, 11)).center_zyx == (11.5, 37.5, 52.5)


@pytest.mark.parametrize("size", [(0, 8, 8), (30, -8, 8), (30, 8, float("inf")), (30, 8, float("nan")), (30, 8)])
def test_a_voxel_size_that_is_no_size_is_refused(size: tuple[float, float, float]) -> None:
    with pytest.raises(UserError, match="voxel size"):
        Layer("image", "image", "/x", "zarr", size)
    with pytest.raises(UserError, match="voxel size"):
        Scene((layer(),), (1, 1, 1), size)


def test_layers_that_cannot_be_shown_are_refused() -> None:
    with pytest.raises(UserError, match="no name"):
        layer(name=" ")
    with pytest.raises(UserError, match="without a reader"):
        Layer("image", "image", "/x", "reader", VOXEL)
    with pytest.raises(UserError, match="with a reader"):
        Layer("image", "image", "/x", "zarr", VOXEL, reader=READER)
    with pytest.raises(UserError, match="value range"):
        Layer("image", "image", "/x", "zarr", VOXEL, value_range=(7, 7))


def test_scenes_that_show_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="no layer"):
        Scene((), (1, 1, 1), VOXEL)
    with pytest.raises(UserError, match=r"share the names \['image'\]"):
        Scene((layer(), layer()), (1, 1, 1), VOXEL)
    with pytest.raises(UserError, match="shape"):
        Scene((layer(),), (1, 0, 1), VOXEL)
