"""Cutting triangles along the planes of a grid, without a crack between the parts.

Triangles are corner coordinates, shape (m, 3, 3): triangle, corner, axis. A plane cuts an edge at the same point for
both triangles that have it, to the last bit, since it is always computed from the edge's lower end to its upper one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]


def cut_at_grid(corners: Corners, cell: NDArray[np.float64]) -> Corners:
    """Cut triangles at all planes of a grid that begins at 0.

    Args:
        corners: at 0 or above, shape (m, 3, 3).
        cell: extent of a cell, shape (3,).

    Returns:
        Triangles none of which crosses a plane, turning as before.
    """
    for axis in range(3):
        top = corners[:, :, axis].max(initial=0.0)
        for number in range(1, int(np.ceil(top / cell[axis]))):
            corners = cut_at_plane(corners, axis, number * float(cell[axis]))
    return corners


def cut_at_plane(corners: Corners, axis: int, plane: float) -> Corners:
    """Cut triangles at one plane across an axis; those that it only touches stay whole."""
    side = np.sign(corners[:, :, axis] - plane)
    is_cut = (side.max(axis=1) > 0) & (side.min(axis=1) < 0)
    if not is_cut.any():
        return corners
    crossing, side = corners[is_cut], side[is_cut]
    has_corner_on_it = (side == 0).any(axis=1)
    halved = _turned(crossing[has_corner_on_it], np.argmax(side[has_corner_on_it] == 0, axis=1))
    others, side = crossing[~has_corner_on_it], side[~has_corner_on_it]
    # Two corners lie on one side; the third, alone on the other, comes first.
    alone = np.argmax(side == -np.sign(side.sum(axis=1))[:, None], axis=1)
    return np.concatenate(
        [corners[~is_cut], _halves(halved, axis, plane), _thirds(_turned(others, alone), axis, plane)]
    )


def _turned(corners: Corners, first: NDArray[np.intp]) -> Corners:
    """Name the corners of each triangle from another one on, in the same direction."""
    order = (first[:, None] + np.arange(3)) % 3
    return np.take_along_axis(corners, order[:, :, None], axis=1)


def _halves(corners: Corners, axis: int, plane: float) -> Corners:
    """Cut triangles whose first corner lies on the plane."""
    a, b, c = (corners[:, corner] for corner in range(3))
    middle = _crossing_point(b, c, axis, plane)
    return np.concatenate([np.stack([a, b, middle], axis=1), np.stack([a, middle, c], axis=1)])


def _thirds(corners: Corners, axis: int, plane: float) -> Corners:
    """Cut triangles whose first corner lies alone on its side of the plane."""
    a, b, c = (corners[:, corner] for corner in range(3))
    near_b, near_c = _crossing_point(a, b, axis, plane), _crossing_point(a, c, axis, plane)
    parts = ([a, near_b, near_c], [near_b, b, c], [near_b, c, near_c])
    return np.concatenate([np.stack(part, axis=1) for part in parts])


def _crossing_point(a: NDArray[np.float64], b: NDArray[np.float64], axis: int, plane: float) -> NDArray[np.float64]:
    """Give the points at which edges cross a plane, the same in whichever direction an edge is named."""
    is_lower = (a[:, axis] < b[:, axis])[:, None]
    lower, upper = np.where(is_lower, a, b), np.where(is_lower, b, a)
    share = (plane - lower[:, axis]) / (upper[:, axis] - lower[:, axis])
    points = lower + (upper - lower) * share[:, None]
    points[:, axis] = plane
    return points
