import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labels.surfaces import count_edge_uses
from pipeline.labels.triangles import cut_at_grid, cut_at_plane


def make_octahedron(center, radius):
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64)
    faces = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
    return (corners * radius + center)[np.array(faces)]


def area_vectors(corners):
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    return np.cross(b - a, c - a) / 2


@given(
    center=st.tuples(*[st.floats(10, 20)] * 3),
    radius=st.floats(0.5, 10),
    cell=st.tuples(*[st.floats(3, 40)] * 3),
)
def test_cutting_keeps_area_and_direction_and_leaves_no_crack(center, radius, cell):
    whole = make_octahedron(np.array(center), radius)
    parts = cut_at_grid(whole, np.array(cell))
    assert np.linalg.norm(area_vectors(parts), axis=1).sum() == pytest.approx(
        np.linalg.norm(area_vectors(whole), axis=1).sum()
    )
    # Of a closed surface the directed areas cancel, before and after.
    assert np.abs(area_vectors(parts).sum(axis=0)).max() < 1e-9
    low, high = parts.min(axis=1) / cell + 1e-9, parts.max(axis=1) / cell - 1e-9
    assert (np.ceil(high) - np.floor(low) <= 1).all()
    _, rows = np.unique(parts.reshape(-1, 3), axis=0, return_inverse=True)
    _, uses = count_edge_uses(rows.reshape(-1, 3).astype(np.uint32))
    assert (uses % 2 == 0).all()


def test_a_triangle_that_touches_a_plane_stays_whole():
    corners = np.array([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]])
    assert cut_at_plane(corners, 0, 4.0) is corners
    assert cut_at_plane(corners, 2, 0.0) is corners


@pytest.mark.parametrize(("plane", "number"), [(2.0, 3), (1.0, 3)])
def test_a_triangle_is_cut_into_so_many(plane, number):
    corners = np.array([[[0.0, 0, 0], [4, 0, 0], [0, 4, 0]]])
    assert len(cut_at_plane(corners, 0, plane)) == number


def test_a_cut_through_a_corner_gives_two():
    corners = np.array([[[0.0, 0, 0], [4, 0, 0], [2, 4, 0]]])
    assert len(cut_at_plane(corners, 0, 2.0)) == 2
