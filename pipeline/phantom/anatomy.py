"""The objects of a piece of tissue: curves that become neurites, arcs that become mitochondria.

Every object is born in one cell of a coarse lattice from a hash of (seed, cell) and has a bounded reach, so
a region needs only the cells around it. Coordinates are nm in *tissue space*, the warped space in which all
shapes are simple.

A neurite is the Voronoi region of a curve under "distance minus weight". Such a region is connected where the
curve is: on the way from a point to its nearest point of the curve no other curve can come closer. Thick
dendrites and arcs with a mitochondrion carry weight; curves of lower rank that would be cut in two by a
weight are dropped (decided from unfiltered neighbors, so the decision is local).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.phantom.hashing import (
    HashArray,
    IndexArray,
    RealArray,
    draw,
    draw_directions,
    hash_cells,
    stream_key,
    unit,
)

BoolArray = npt.NDArray[np.bool_]
NUM_SEGMENTS = 8
INFLUENCE_NM = 700.0
"""Beyond this distance a curve owns nothing."""


@dataclass(frozen=True)
class Family:
    """One kind of curve and how densely it fills space."""

    stream: int
    id_class: int
    pitch_nm: float
    presence: float
    step_nm: float
    bend: float
    weight_nm: float
    mito_share: float
    mito_radius_nm: tuple[float, float]

    @property
    def reach_nm(self) -> float:
        """Largest distance of the curve from its middle."""
        return NUM_SEGMENTS // 2 * self.step_nm


THIN = Family(11, 1, 590.0, 1.0, 260.0, 0.55, 0.0, 0.46, (90.0, 185.0))
THICK = Family(12, 2, 2300.0, 0.6, 450.0, 0.35, 210.0, 0.7, (110.0, 210.0))

THICK_APART_NM = 110.0
"""Two thick curves keep this distance, so that a mitochondrion on one is never cut by the other."""


@dataclass(frozen=True)
class Curves:
    """Polylines of one family with their weights and mitochondria."""

    ids: HashArray
    """(n,) object ids, never 0."""
    keys: HashArray
    """(n,) random keys."""
    points_nm: RealArray
    """(n, 9, 3) corners."""
    weight_nm: RealArray
    """(n, 8) weight of each segment."""
    mito_radius_nm: RealArray
    """(n,) radius of the mitochondrion; 0 where there is none."""
    mito_segment: BoolArray
    """(n, 8) whether the segment is the axis of the mitochondrion."""

    def select(self, index: npt.NDArray[np.bool_] | IndexArray) -> Curves:
        """Keep some curves."""
        return Curves(
            self.ids[index],
            self.keys[index],
            self.points_nm[index],
            self.weight_nm[index],
            self.mito_radius_nm[index],
            self.mito_segment[index],
        )


def cells_around(low_nm: RealArray, high_nm: RealArray, pitch_nm: float) -> IndexArray:
    """List the lattice cells that touch a box, shape (n, 3), in z, y, x order."""
    first = np.floor(low_nm / pitch_nm).astype(np.int64)
    last = np.floor(high_nm / pitch_nm).astype(np.int64) + 1
    axes = [np.arange(a, b, dtype=np.int64) for a, b in zip(first, last, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def cell_ids(cells: IndexArray, id_class: int) -> HashArray:
    """Give every cell its own id: 2 bits of class, then 20 bits per axis."""
    packed = (cells + (1 << 19)).astype(np.uint64) & np.uint64((1 << 20) - 1)
    ids = np.uint64(id_class) << np.uint64(60)
    return ids | packed[:, 0] << np.uint64(40) | packed[:, 1] << np.uint64(20) | packed[:, 2]


def grow_curves(seed: int, family: Family, low_nm: RealArray, high_nm: RealArray) -> Curves:
    """Make every curve of a family whose middle lies in the cells that touch the box."""
    cells = cells_around(low_nm, high_nm, family.pitch_nm)
    keys = hash_cells(stream_key(seed, family.stream), cells)
    alive = draw(keys, 0) < family.presence
    cells, keys = cells[alive], keys[alive]
    jitter = np.stack([draw(keys, 1 + axis) for axis in range(3)], axis=1)
    half = NUM_SEGMENTS // 2
    points = np.empty((len(keys), NUM_SEGMENTS + 1, 3))
    points[:, half] = (cells + jitter) * family.pitch_nm
    start = draw_directions(keys, 4)
    for sign in (1, -1):
        direction = start * sign
        for step in range(1, half + 1):
            bend = draw_directions(keys, 100 + 3 * (half + sign * step)) * family.bend
            direction = unit(direction + bend)
            points[:, half + sign * step] = points[:, half + sign * (step - 1)] + direction * family.step_nm
    return _with_mitochondria(family, cell_ids(cells, family.id_class), keys, points)


def _with_mitochondria(family: Family, ids: HashArray, keys: HashArray, points: RealArray) -> Curves:
    """Decide which curves carry a mitochondrion, where on the curve, and how thick."""
    low, high = family.mito_radius_nm
    carries = draw(keys, 10) < family.mito_share
    size = draw(keys, 11)
    radius = np.where(carries, low + (high - low) * size * size, 0.0)
    length = 1 + np.floor(draw(keys, 12) * draw(keys, 13) * (NUM_SEGMENTS - 1)).astype(np.int64)
    first = np.floor(draw(keys, 14) * (NUM_SEGMENTS + 1 - length)).astype(np.int64)
    segment = np.arange(NUM_SEGMENTS)
    axis = (segment >= first[:, None]) & (segment < (first + length)[:, None]) & carries[:, None]
    weight = np.where(axis, np.maximum(family.weight_nm, radius * 0.8)[:, None], family.weight_nm)
    return Curves(ids, keys, points, weight, radius, axis)


def segment_distances(points: RealArray, start: RealArray, stop: RealArray) -> RealArray:
    """Distance from points to segments, all (..., 3) and broadcast against each other."""
    axis = stop - start
    offset = points - start
    along = (offset[..., 0] * axis[..., 0] + offset[..., 1] * axis[..., 1]) + offset[..., 2] * axis[..., 2]
    square = (axis[..., 0] ** 2 + axis[..., 1] ** 2) + axis[..., 2] ** 2
    t = np.minimum(np.maximum(along / square, 0.0), 1.0)
    rest = offset - axis * t[..., None]
    return np.sqrt((rest[..., 0] ** 2 + rest[..., 1] ** 2) + rest[..., 2] ** 2)


def _collides(curves: Curves, heavy: Curves, outranks: BoolArray | None, margin_nm: float) -> BoolArray:
    """Whether a curve comes within a heavy arc's weight plus a margin; (n,) flags.

    `outranks`: (n, m), which heavy curves count for which curve; None: all.
    """
    who, what = _near_pairs(curves, heavy, outranks)
    samples = np.concatenate([curves.points_nm, (curves.points_nm[:, 1:] + curves.points_nm[:, :-1]) * 0.5], axis=1)
    hit = np.zeros(len(curves.ids), np.bool_)
    for segment in range(NUM_SEGMENTS):
        active = heavy.mito_segment[:, segment] | (heavy.weight_nm[:, segment] > 0)
        rows = np.flatnonzero(active[what] & ~hit[who])
        start, stop = heavy.points_nm[what[rows], segment], heavy.points_nm[what[rows], segment + 1]
        limit = (heavy.weight_nm[what[rows], segment] + margin_nm)[:, None]
        gap = segment_distances(samples[who[rows]], start[:, None], stop[:, None])
        hit[who[rows[(gap < limit).any(axis=1)]]] = True
    return hit


def _near_pairs(curves: Curves, heavy: Curves, outranks: BoolArray | None) -> tuple[IndexArray, IndexArray]:
    """Rows of the pairs whose bounding boxes come within 300 nm of each other: (curve, heavy curve)."""
    near = np.ones((len(curves.ids), len(heavy.ids)), np.bool_) if outranks is None else outranks.copy()
    low, high = curves.points_nm.min(axis=1) - 300.0, curves.points_nm.max(axis=1) + 300.0
    heavy_low, heavy_high = heavy.points_nm.min(axis=1), heavy.points_nm.max(axis=1)
    for axis in range(3):
        near &= heavy_low[None, :, axis] < high[:, None, axis]
        near &= heavy_high[None, :, axis] > low[:, None, axis]
    who, what = np.nonzero(near)
    return who, what


def _touching(curves: Curves, low_nm: RealArray, high_nm: RealArray) -> BoolArray:
    """Whether a corner of the curve lies within one step of the box."""
    inside: BoolArray = (curves.points_nm >= low_nm) & (curves.points_nm <= high_nm)
    corners = inside[..., 0] & inside[..., 1] & inside[..., 2]
    flags: BoolArray = np.logical_or.reduce(corners, axis=1)
    return flags


def grow_tissue(seed: int, low_nm: RealArray, high_nm: RealArray) -> Curves:
    """Make every curve that may own a point of a box of tissue space, in a fixed order.

    Args:
        seed: of the phantom.
        low_nm: lower corner zyx, tissue space.
        high_nm: upper corner zyx.

    Returns:
        Thick curves, then thin ones, each in cell order.
    """
    margin = INFLUENCE_NM + THICK.step_nm
    near = margin + THIN.reach_nm
    far = near + 2 * THIN.reach_nm + 300.0
    widest = near + THIN.reach_nm + 2 * THICK.reach_nm + 600.0
    wide = grow_curves(seed, THICK, low_nm - widest, high_nm + widest)
    rivals = grow_curves(seed, THIN, low_nm - far, high_nm + far)
    rivals_heavy = rivals.select(rivals.mito_radius_nm > 0)
    thin = rivals.select(_touching(rivals, low_nm - margin, high_nm + margin))
    thin = thin.select(~_collides(thin, wide, None, 30.0))
    plain = thin.mito_radius_nm == 0
    outranks = plain[:, None] | (rivals_heavy.keys[None] > thin.keys[:, None])
    outranks &= rivals_heavy.ids[None] != thin.ids[:, None]
    thin = thin.select(~_collides(thin, rivals_heavy, outranks, 35.0))
    thick = wide.select(_touching(wide, low_nm - margin, high_nm + margin))
    outranks = wide.keys[None] > thick.keys[:, None]
    thick = thick.select(~_collides(thick, wide, outranks, THICK_APART_NM - THICK.weight_nm))
    return Curves(
        *(
            np.concatenate([getattr(thick, name), getattr(thin, name)])
            for name in ("ids", "keys", "points_nm", "weight_nm", "mito_radius_nm", "mito_segment")
        )
    )
