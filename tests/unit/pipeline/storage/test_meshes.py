"""Stored meshes, read back by cloud-volume."""

import json

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.storage import LabelVolumeSpec, ObjectStore, StorageOptions, label_writer
from pipeline.storage.locations import shape_url
from pipeline.storage.meshes import Mesh, encode_levels, mesh_info, mesh_of, write_legacy_mesh, write_meshes
from pipeline.storage.shapes import attach_shapes, delete_shapes, detach_shapes, has_shapes, write_shape_info

OPTIONS = StorageOptions()


def make_octahedron(center, radius):
    """A closed surface that turns counterclockwise seen from outside, in x, y, z."""
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64)
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    return Mesh(corners * radius + np.array(center), np.array(faces, np.uint32))


@pytest.fixture
def volume(tmp_path):
    spec = LabelVolumeSpec(str(tmp_path / "seg"), (8, 8, 8), (8.0, 8.0, 8.0), (8, 8, 8))
    label_writer("precomputed", spec).create()
    return spec.url


def signed_volume(vertices, faces):
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def open_meshes(volume):
    attach_shapes(volume, "mesh")
    return CloudVolume(f"file://{volume}", progress=False).mesh


def test_several_levels_in_a_shard_are_read_back_where_they_were(volume):
    url, info = shape_url(volume, "precomputed", "mesh"), mesh_info("multiresolution", 2**33 + 5, 64)
    write_shape_info(url, info)
    wanted = {segment: make_octahedron((1000.0 + segment % 7, 5000.0, 70.5), 300.0) for segment in (2**33, 2**33 + 5)}
    encoded = {segment: encode_levels(segment, [mesh, mesh, mesh], 8.0) for segment, mesh in wanted.items()}
    write_meshes(url, info, encoded, OPTIONS)
    meshes = open_meshes(volume)
    for segment, mesh in wanted.items():
        for lod in range(3):
            found = meshes.get(segment, lod=lod)[segment]
            assert np.abs(found.vertices.min(axis=0) - mesh.vertices_nm.min(axis=0)).max() < 0.02
            assert np.abs(found.vertices.max(axis=0) - mesh.vertices_nm.max(axis=0)).max() < 0.02
            assert signed_volume(found.vertices - found.vertices.mean(axis=0), found.faces) == pytest.approx(
                signed_volume(mesh.vertices_nm - mesh.vertices_nm.mean(axis=0), mesh.triangles), rel=1e-3
            )


def test_fragments_stand_in_z_order_and_triangles_stay_inside_their_eighth(volume):
    url, info = shape_url(volume, "precomputed", "mesh"), mesh_info("multiresolution", 9, 64)
    write_shape_info(url, info)
    mesh = make_octahedron((0.0, 0.0, 0.0), 100.0)
    write_meshes(url, info, {9: encode_levels(9, [mesh, mesh], 8.0)}, OPTIONS)
    manifest = open_meshes(volume).get_manifest(9)
    assert manifest.num_fragments_per_lod.tolist() == [8, 1]
    assert manifest.fragment_positions[0][:4].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    assert manifest.lod_scales[0] > 0
    found = open_meshes(volume).get(9, lod=1)[9]
    middle = np.array(manifest.grid_origin) + np.array(manifest.chunk_shape)
    sides = np.sign(np.round(found.vertices[found.faces] - middle, 1))
    assert (sides.max(axis=1) - sides.min(axis=1)).max() <= 1


def test_legacy_meshes_are_read_back(volume):
    url = shape_url(volume, "precomputed", "mesh")
    write_shape_info(url, mesh_info("legacy", 4, 1024))
    write_legacy_mesh(url, 4, make_octahedron((10.0, 20.0, 30.0), 5.0))
    found = open_meshes(volume).get(4)
    found = found[4] if isinstance(found, dict) else found
    assert found.vertices.min(axis=0).tolist() == [5.0, 15.0, 25.0]
    assert signed_volume(found.vertices, found.faces) == pytest.approx(4 / 3 * 5**3)


def test_turning_axes_around_keeps_the_outside_outside():
    mesh = make_octahedron((0.0, 0.0, 0.0), 1.0)
    turned = mesh_of(mesh.vertices_nm, mesh.triangles)
    assert signed_volume(turned.vertices_nm, turned.triangles) == pytest.approx(4 / 3)


def test_an_object_without_extent_along_an_axis_can_be_stored(volume):
    flat = Mesh(np.array([[0.0, 0, 8], [8, 0, 8], [0, 8, 8]]), np.array([[0, 1, 2]], np.uint32))
    data, manifest_bytes = encode_levels(1, [flat], 8.0)
    assert 0 < manifest_bytes < len(data)


def test_where_meshes_lie():
    assert shape_url("s3://b/seg/", "precomputed", "mesh") == "s3://b/seg/mesh"
    assert shape_url("b/seg.zarr", "ome-zarr", "mesh") == "b/seg.zarr.mesh"


def test_attaching_and_detaching_leave_the_rest_of_info(volume, tmp_path):
    before = json.loads((tmp_path / "seg" / "info").read_text())
    attach_shapes(volume, "mesh")
    assert json.loads((tmp_path / "seg" / "info").read_text())["mesh"] == "mesh"
    detach_shapes(volume, "mesh")
    assert json.loads((tmp_path / "seg" / "info").read_text()) == before


def test_only_a_folder_of_meshes_is_deleted(tmp_path):
    url = str(tmp_path / "a.zarr.mesh")
    ObjectStore(url).put("notes.txt", b"mine")
    delete_shapes(url)
    assert not has_shapes(url)
    assert (tmp_path / "a.zarr.mesh" / "notes.txt").exists()
    write_shape_info(url, mesh_info("legacy", 1, 1024))
    delete_shapes(url)
    assert not (tmp_path / "a.zarr.mesh").exists()
