"""Who owns a voxel: nearest and second nearest curve, distance to the border, depth inside a mitochondrion.

A tile is a frame of voxels anchored at the volume's origin; arithmetic inside it is relative to its center,
in float32. A box that cuts a tile computes the same numbers for the voxels it shares with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.geometry import Box, Vector
from pipeline.phantom.anatomy import INFLUENCE_NM, Curves, segment_distances
from pipeline.phantom.hashing import FloatArray, RealArray, draw, line_keys, smooth_noise, stream_key
from pipeline.phantom.spec import PhantomSpec

OwnerArray = npt.NDArray[np.int32]

WARP_OCTAVES_NM = ((900.0, 75.0, 20), (170.0, 16.0, 30))
"""Wavelength, amplitude (both nm) and stream of the distortion of tissue space."""
WARP_LIMIT_NM = 4.0 * 75.0 + 4.0 * 16.0 + 5 * 50.0
"""No point moves farther than this: noise stays within 4 deviations, jitter within 5 times its limit."""
MITO_GAP_NM = 20.0
"""Cytoplasm between a mitochondrion and the neurite's border."""
_CELL_VOXELS = 9
"""Edge of the cells that bound where a curve matters; small ones cost search, large ones arithmetic."""
_OTHER_AXES = ((1, 2), (0, 2), (0, 1))
FAR_NM = 60.0
"""Depths are capped here: nothing is drawn farther outside a mitochondrion."""


@dataclass(frozen=True)
class Tile:
    """The voxels of one frame that a box asks for."""

    voxels: Box
    """Global voxel indices."""
    center_nm: RealArray
    """Center of the whole frame, zyx, in nm: the origin of `tissue_nm`."""
    positions_nm: tuple[RealArray, RealArray, RealArray]
    """Global coordinates of the voxels' centers along z, y and x."""
    tissue_nm: tuple[FloatArray, FloatArray, FloatArray]
    """Warped coordinates of every voxel relative to `center_nm`."""
    extremes_nm: tuple[tuple[FloatArray, FloatArray], ...]
    """Per axis: least and largest warped coordinate of each plane across that axis."""


@dataclass(frozen=True)
class Territory:
    """Ownership of every voxel of a tile."""

    owner: OwnerArray
    """Row of the nearest curve; -1 where none is near."""
    second: OwnerArray
    """Row of the second nearest curve; -1 where none is near."""
    border_nm: FloatArray
    """Distance to the border with the second nearest curve, >= 0."""
    axis_nm: FloatArray
    """Distance to the axis of the owner's mitochondrion minus its radius, capped at `FAR_NM`."""


def frame_shape(spec: PhantomSpec) -> Vector:
    """Choose the frame: powers of two, large enough for numpy and small enough to meet few curves."""
    z, y, x = spec.voxel_size_zyx_nm
    return _power(320.0 / z, 4, 32), _power(160.0 / y, 32, 64), _power(160.0 / x, 32, 64)


def _power(wanted: float, low: int, high: int) -> int:
    """Largest power of two not above `wanted`, within limits."""
    size = low
    while size * 2 <= min(wanted, high):
        size *= 2
    return size


def make_tile(spec: PhantomSpec, frame: Box, voxels: Box) -> Tile:
    """Compute the warped coordinates of the wanted voxels of a frame."""
    size = spec.voxel_size_zyx_nm
    center = np.array([(a + b) * 0.5 * s for a, b, s in zip(frame.start, frame.stop, size, strict=True)])
    axes = [
        (np.arange(a, b, dtype=np.float64) + 0.5) * s for a, b, s in zip(voxels.start, voxels.stop, size, strict=True)
    ]
    positions = (axes[0], axes[1], axes[2])
    shift = _section_shift(spec, voxels)
    warped = []
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = -1
        field = np.zeros(voxels.shape, np.float32)
        for wavelength, amplitude, stream in WARP_OCTAVES_NM:
            noise = smooth_noise(stream_key(spec.seed, stream + axis), positions, wavelength)
            noise *= np.float32(amplitude)
            field += noise
        field += (positions[axis] - center[axis]).astype(np.float32).reshape(shape)
        if axis and spec.section_jitter_nm:
            field += shift[:, axis - 1].reshape(-1, 1, 1)
        warped.append(field)
    extremes = tuple((u.min(axis=rest), u.max(axis=rest)) for u, rest in zip(warped, _OTHER_AXES, strict=True))
    return Tile(voxels, center, positions, (warped[0], warped[1], warped[2]), extremes)


def _section_shift(spec: PhantomSpec, voxels: Box) -> FloatArray:
    """Displacement of each section in y and x, in nm, shape (z, 2)."""
    sections = np.arange(voxels.start[0], voxels.stop[0], dtype=np.int64)
    keys = line_keys(stream_key(spec.seed, 40), sections)
    parts = [sum(draw(keys, 4 * axis + k) for k in range(4)) - 2.0 for axis in range(2)]
    # The sum of four uniforms has a deviation of 0.57735.
    return (np.stack(parts, axis=1) * (spec.section_jitter_nm / 0.57735)).astype(np.float32)


def find_candidates(tile: Tile, curves: Curves) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """List the curves that may be nearest or second nearest somewhere in the tile, with their segments.

    Bounds over the whole tile leave few segments, bounds over its cells fewer. The list may hold more than
    needed, never less, so the result does not depend on where a tile is cut.
    """
    low = np.array([[least.min() for least, _ in tile.extremes_nm]], np.float64)
    high = np.array([[most.max() for _, most in tile.extremes_nm]], np.float64)
    points = curves.points_nm - tile.center_nm
    rows, segments = _needed(low, high, points, curves, *np.indices(curves.weight_nm.shape).reshape(2, -1))
    low, high = _cell_bounds(tile)
    rows, segments = _needed(low, high, points, curves, rows, segments)
    found, starts = np.unique(rows, return_index=True)
    return list(zip(found.tolist(), np.split(segments, starts[1:]), strict=True))


def _needed(
    low: RealArray,
    high: RealArray,
    points: RealArray,
    curves: Curves,
    rows: npt.NDArray[np.int64],
    segments: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Keep the segments that may matter inside one of several boxes of tissue space, each (n, 3)."""
    middle = (low + high) * 0.5
    radius = np.sqrt((((high - low) * 0.5) ** 2).sum(axis=1))[:, None] + 1.0
    distance = segment_distances(middle[:, None], points[rows, segments], points[rows, segments + 1])
    value = distance - curves.weight_nm[rows, segments]
    found, starts = np.unique(rows, return_index=True)
    limit = np.full((len(low), 1), INFLUENCE_NM)
    if len(found) > 1:
        upper = np.minimum.reduceat(value, starts, axis=1)
        limit = np.minimum(np.partition(upper, 1, axis=1)[:, 1:2] + radius, INFLUENCE_NM)
    keep = value - radius <= limit
    slack = curves.mito_radius_nm[rows] * 1.5 + FAR_NM
    keep |= curves.mito_segment[rows, segments] & (distance - radius <= slack)
    kept = np.flatnonzero(keep.any(axis=0))
    return rows[kept], segments[kept]


def _cell_bounds(tile: Tile) -> tuple[RealArray, RealArray]:
    """Corners in tissue space of cells of about `_CELL_VOXELS` cubed, each (n, 3)."""
    corners: list[list[RealArray]] = [[], []]
    for field in tile.tissue_nm:
        for side, reduce in enumerate((np.minimum, np.maximum)):
            bound = field
            for axis in range(3):
                cuts = np.arange(0, field.shape[axis], _CELL_VOXELS)
                bound = reduce.reduceat(bound, cuts, axis=axis)
            corners[side].append(bound.reshape(-1).astype(np.float64))
    return np.stack(corners[0], axis=1), np.stack(corners[1], axis=1)


class _Workspace:
    """Arrays used again for every curve: fresh ones would cost more in page faults than in arithmetic."""

    def __init__(self, tile: Tile) -> None:
        """Take five arrays of the tile's shape."""
        self.tile = tile
        self.z, self.y, self.x, self.t, self.best = np.empty((5, *tile.voxels.shape), np.float32)

    def distance(self, start: RealArray, stop: RealArray, out: FloatArray) -> None:
        """Write the distance of every voxel to the nearest of several segments, in nm."""
        for number, (a, b) in enumerate(zip(start.astype(np.float32), stop.astype(np.float32), strict=True)):
            square = self._square(a, b - a)
            if number:
                np.minimum(out, square, out=out)
            else:
                np.copyto(out, square)
        np.sqrt(out, out=out)

    def _square(self, start: FloatArray, axis: FloatArray) -> FloatArray:
        """Squared distance to one segment, in a work array."""
        offsets = (self.z, self.y, self.x)
        t, part = self.t, self.best
        length_square = (axis[0] * axis[0] + axis[1] * axis[1]) + axis[2] * axis[2]
        for k in range(3):
            np.subtract(self.tile.tissue_nm[k], start[k], out=offsets[k])
            np.multiply(offsets[k], axis[k] / length_square, out=part if k else t)
            if k:
                t += part
        np.maximum(t, np.float32(0), out=t)
        np.minimum(t, np.float32(1), out=t)
        for k in range(3):
            np.multiply(t, axis[k], out=part)
            np.subtract(offsets[k], part, out=offsets[k])
            np.multiply(offsets[k], offsets[k], out=offsets[k])
        self.z += self.y
        self.z += self.x
        return self.z


def divide(tile: Tile, curves: Curves, radius_noise: FloatArray) -> Territory:
    """Give every voxel of the tile to its nearest curve.

    Args:
        tile: the voxels.
        curves: all curves that may own one of them.
        radius_noise: relative change of the mitochondria's radius per voxel, within +-0.45.

    Returns:
        Owners, borders and mitochondria.
    """
    shape = tile.voxels.shape
    work = _Workspace(tile)
    value, near = np.empty((2, *shape), np.float32)
    first = np.full(shape, np.float32(INFLUENCE_NM))
    second_value = first.copy()
    owner = np.full(shape, -1, np.int32)
    second = owner.copy()
    axis = np.full(shape, np.float32(FAR_NM))
    for row, segments in find_candidates(tile, curves):
        has_axis = _curve_value(work, curves, row, segments, value, near)
        wins = value < first
        np.copyto(second, np.int32(row), where=value < second_value)
        np.copyto(second, owner, where=wins)
        np.copyto(owner, np.int32(row), where=wins)
        np.minimum(second_value, np.maximum(first, value, out=work.t), out=second_value)
        np.minimum(first, value, out=first)
        if has_axis:
            np.multiply(radius_noise + np.float32(1), np.float32(curves.mito_radius_nm[row]), out=work.t)
            near -= work.t
            np.minimum(near, np.float32(FAR_NM), out=near)
            np.copyto(axis, near, where=wins)
        else:
            np.copyto(axis, np.float32(FAR_NM), where=wins)
    second_value -= first
    second_value *= np.float32(0.5)
    return Territory(owner, second, second_value, axis)


def _curve_value(
    work: _Workspace,
    curves: Curves,
    row: int,
    segments: npt.NDArray[np.int64],
    value: FloatArray,
    near: FloatArray,
) -> bool:
    """Write distance minus weight of one curve to `value` and the distance to its mitochondrion to `near`.

    Returns:
        Whether a part of the mitochondrion is near; otherwise `near` means nothing.
    """
    points = curves.points_nm[row] - work.tile.center_nm
    on_axis = curves.mito_segment[row, segments]
    plain, axis = segments[~on_axis], segments[on_axis]
    if len(plain):
        work.distance(points[plain], points[plain + 1], value)
        value -= np.float32(curves.weight_nm[row, plain[0]])
    if len(axis):
        work.distance(points[axis], points[axis + 1], near)
        np.subtract(near, np.float32(curves.weight_nm[row, axis[0]]), out=work.t)
        np.minimum(value, work.t, out=value) if len(plain) else np.copyto(value, work.t)
    return bool(len(axis))


def mito_depth(border_nm: FloatArray, axis_nm: FloatArray) -> FloatArray:
    """Signed depth of mitochondria in nm, negative inside: inside the radius and away from the border.

    A smooth maximum (25 nm) rounds the edge where the two conditions meet.
    """
    near_border = np.float32(MITO_GAP_NM) - border_nm
    gap = axis_nm - near_border
    return np.float32(0.5) * (axis_nm + near_border + np.sqrt(gap * gap + np.float32(625.0)))
