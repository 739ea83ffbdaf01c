from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import CorruptData, VolumeFormatError, VolumeNotFound
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.scene import Layer, LayerFormat
from pipeline.viewer.source import describe_source, source_of

VOXEL = (30.0, 8.0, 4.0)
MULTISCALES = [{"datasets": [{"path": "0"}]}]


def write(path: Path, metadata: dict[str, Any] | list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(metadata))


def layer(location: Path | str, layer_format: LayerFormat = "zarr", **more: Any) -> Layer:
    return Layer("seg", "segmentation", str(location), layer_format, VOXEL, **more)


def test_ome_zarr_05_is_opened_as_version_3(tmp_path: Path) -> None:
    write(tmp_path / "zarr.json", {"node_type": "group", "attributes": {"ome": {"multiscales": MULTISCALES}}})
    assert source_of(layer(tmp_path), "http://h/x") == {"url": "zarr3://http://h/x"}


def test_ome_zarr_04_is_opened_as_version_2(tmp_path: Path) -> None:
    write(tmp_path / ".zattrs", {"multiscales": MULTISCALES})
    write(tmp_path / ".zgroup", {"zarr_format": 2})
    assert source_of(layer(tmp_path), "http://h/x") == {"url": "zarr2://http://h/x"}


def test_precomputed(tmp_path: Path) -> None:
    write(tmp_path / "info", {})
    assert source_of(layer(tmp_path, "precomputed"), "http://h/x") == {"url": "precomputed://http://h/x"}


@pytest.mark.parametrize(
    ("filename", "metadata", "axes"),
    [
        (".zarray", {"shape": [2, 3, 5]}, ["d0", "d1", "d2"]),
        ("zarr.json", {"shape": [2, 3, 5], "node_type": "array"}, ["dim_0", "dim_1", "dim_2"]),
        (
            "zarr.json",
            {"shape": [2, 3, 5], "node_type": "array", "dimension_names": ["z", None, "x"]},
            ["z", "dim_1", "x"],
        ),
    ],
)
def test_a_plain_array_is_given_its_voxel_size(
    tmp_path: Path, filename: str, metadata: dict[str, Any], axes: list[str]
) -> None:
    write(tmp_path / filename, metadata)
    transform = source_of(layer(tmp_path), "http://h/x")["transform"]
    assert list(transform["inputDimensions"]) == axes
    assert [scale for scale, _ in transform["inputDimensions"].values()] == pytest.approx([30e-9, 8e-9, 4e-9])
    assert list(transform["outputDimensions"]) == ["z", "y", "x"]
    assert [row[3] for row in transform["matrix"]] == [0, 0, 0]


def test_a_shift_is_written_in_voxels(tmp_path: Path) -> None:
    write(tmp_path / "info", {})
    source = source_of(layer(tmp_path, "precomputed", shift_zyx_nm=(-15.0, -4.0, 8.0)), "http://h/x")
    assert [row[3] for row in source["transform"]["matrix"]] == [-0.5, -0.5, 2.0]
    assert list(source["transform"]["inputDimensions"]) == ["z", "y", "x"]


@pytest.mark.parametrize(
    ("layer_format", "url"), [("zarr", "zarr://s3://b/x"), ("precomputed", "precomputed://s3://b/x")]
)
def test_a_remote_layer_is_taken_at_its_word(layer_format: LayerFormat, url: str) -> None:
    assert source_of(layer("s3://b/x", layer_format), "s3://b/x") == {"url": url}


def test_a_reader_is_sent_by_the_server_without_meshes_and_placed_at_its_origin() -> None:
    reader = BoxReader.of_array(np.zeros((2, 3, 5), np.uint8), VOXEL, (60.0, 0.0, 4.0))
    shown = Layer("em", "image", "stack.tif", "reader", VOXEL, reader=reader, shift_zyx_nm=(0.0, 8.0, 0.0))
    source = source_of(shown, "unused")
    assert (source["url"].data_type, source["url"].volume_type) == ("uint8", "image")
    assert [row[3] for row in source["transform"]["matrix"]] == [2, 1, 1]
    assert "mesh" not in source["subsources"]
    assert source["enableDefaultSubsources"] is False


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VolumeNotFound, match="no folder"):
        describe_source(layer(tmp_path / "missing"))
    with pytest.raises(VolumeFormatError, match="not precomputed"):
        describe_source(layer(tmp_path, "precomputed"))
    with pytest.raises(VolumeFormatError, match="not a zarr volume"):
        describe_source(layer(tmp_path))


def test_a_group_without_an_image_and_an_array_of_four_axes_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "group" / "zarr.json", {"node_type": "group", "attributes": {}})
    with pytest.raises(VolumeFormatError, match="inside it"):
        describe_source(layer(tmp_path / "group"))
    write(tmp_path / "array" / ".zarray", {"shape": [1, 2, 3, 5]})
    with pytest.raises(VolumeFormatError, match="4 axes"):
        describe_source(layer(tmp_path / "array"))


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_metadata_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "zarr.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptData, match=r"zarr\.json"):
        describe_source(layer(tmp_path))
