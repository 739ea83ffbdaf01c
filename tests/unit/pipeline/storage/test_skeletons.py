"""Stored skeletons, read back by cloud-volume."""

import json

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.storage import LabelVolumeSpec, StorageOptions, label_writer
from pipeline.storage.locations import shape_url
from pipeline.storage.shapes import (
    attach_shapes,
    delete_shapes,
    has_shapes,
    read_shape_file,
    write_object,
    write_shape_info,
    write_shard,
)
from pipeline.storage.skeletons import encode_skeleton, skeleton_info

OPTIONS = StorageOptions()
LAST_ID = 2**40 + 7
VERTICES_ZYX = np.array([[15.0, 4.0, 4.0], [45.0, 4.5, 12.0], [75.0, 20.0, 12.0]])
EDGES = np.array([[0, 1], [1, 2]], np.uint32)
RADII = np.array([10.0, 20.5, 8.0], np.float32)


@pytest.fixture
def volume(tmp_path):
    spec = LabelVolumeSpec(str(tmp_path / "seg"), (8, 8, 8), (30.0, 8.0, 8.0), (8, 8, 8))
    label_writer("precomputed", spec).create()
    return spec.url


def write(url, skeleton_format, segments):
    info = skeleton_info(skeleton_format, LAST_ID, 64)
    write_shape_info(url, info)
    data = {segment: encode_skeleton(VERTICES_ZYX + segment % 5, EDGES, RADII) for segment in segments}
    if skeleton_format == "sharded":
        return info, write_shard(url, info, data, OPTIONS)
    return info, [write_object(url, segment, found, OPTIONS) for segment, found in data.items()][-1]


@pytest.mark.parametrize("skeleton_format", ["sharded", "files"])
def test_skeletons_are_read_back_with_radius_and_axes_turned(volume, skeleton_format):
    url = shape_url(volume, "precomputed", "skeletons")
    segments = (LAST_ID - 2, LAST_ID)
    info, last = write(url, skeleton_format, segments)
    assert read_shape_file(url, info, LAST_ID) == last
    assert read_shape_file(url, info, 3) is None
    attach_shapes(volume, "skeletons")
    source = CloudVolume(f"file://{volume}", progress=False).skeleton
    for segment in segments:
        found = source.get(segment)
        np.testing.assert_array_equal(found.vertices, (VERTICES_ZYX + segment % 5)[:, ::-1].astype(np.float32))
        np.testing.assert_array_equal(found.edges, EDGES)
        np.testing.assert_array_equal(found.radius, RADII)


def test_only_a_folder_of_skeletons_is_deleted(volume, tmp_path):
    url = shape_url(f"{tmp_path}/a.zarr", "ome-zarr", "skeletons")
    assert url == f"{tmp_path}/a.zarr.skeletons"
    write(url, "files", [4])
    assert has_shapes(url)
    delete_shapes(url)
    assert not (tmp_path / "a.zarr.skeletons").exists()


def test_the_description_is_what_neuroglancer_reads():
    info = skeleton_info("files", LAST_ID, 64)
    assert json.loads(json.dumps(info)) == {
        "@type": "neuroglancer_skeletons",
        "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
    }
    assert skeleton_info("sharded", LAST_ID, 64)["sharding"]["hash"] == "identity"
