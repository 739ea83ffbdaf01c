"""Small things inside and between neurites: synapses with their vesicles, and other organelles.

They are placed in tissue space like the curves: one at most per cell of a coarse lattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.phantom.anatomy import Curves, cell_ids, cells_around
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
from pipeline.phantom.spec import PhantomSpec

SYNAPSE_PITCH_NM = 850.0
SYNAPSE_REACH_NM = 420.0
"""Nothing of a synapse, vesicles included, lies farther from its middle."""
ORGANELLE_PITCH_NM = 270.0
ORGANELLE_REACH_NM = 340.0
_SYNAPSE_CLASS = 3
_MAX_VESICLES = 90


@dataclass(frozen=True)
class Synapses:
    """Contacts between two neurites."""

    ids: HashArray
    """(n,) object ids."""
    middle_nm: RealArray
    """(n, 3) a point of the border between the two."""
    normal_nm: RealArray
    """(n, 3) unit vector from the sender to the receiver."""
    radius_nm: RealArray
    """(n,) lateral extent."""
    sender: IndexArray
    """(n,) row of the presynaptic curve."""
    receiver: IndexArray
    """(n,) row of the postsynaptic curve."""
    vesicles_nm: RealArray
    """(n, 90, 3) centers of the vesicles."""
    num_vesicles: IndexArray
    """(n,) how many of them exist."""


@dataclass(frozen=True)
class Organelles:
    """Capsules inside neurites: endoplasmic reticulum, endosomes, lysosomes."""

    start_nm: RealArray
    """(n, 3) one end of the axis."""
    stop_nm: RealArray
    """(n, 3) the other end."""
    radius_nm: RealArray
    """(n,) radius."""
    lumen_grey: RealArray
    """(n,) grey value inside the membrane."""


@dataclass(frozen=True)
class Details:
    """All small objects of a region."""

    synapses: Synapses
    organelles: Organelles


def grow_details(spec: PhantomSpec, curves: Curves, low_nm: RealArray, high_nm: RealArray) -> Details:
    """Make every small object that may show in a box of tissue space."""
    return Details(_grow_synapses(spec.seed, curves, low_nm, high_nm), _grow_organelles(spec.seed, low_nm, high_nm))


def _grow_organelles(seed: int, low_nm: RealArray, high_nm: RealArray) -> Organelles:
    cells = cells_around(low_nm - ORGANELLE_REACH_NM, high_nm + ORGANELLE_REACH_NM, ORGANELLE_PITCH_NM)
    keys = hash_cells(stream_key(seed, 60), cells)
    jitter = np.stack([draw(keys, axis) for axis in range(3)], axis=1)
    middle = (cells + jitter) * ORGANELLE_PITCH_NM
    kind = draw(keys, 4)
    size = draw(keys, 5)
    tube, round_ = kind < 0.45, kind < 0.9
    radius = np.where(tube, 16.0 + 14.0 * size, np.where(round_, 26.0 + 26.0 * size, 55.0 + 60.0 * size))
    stretch = draw(keys, 6)
    length = np.where(tube, 60.0 + 140.0 * stretch, np.where(round_, 50.0 * stretch, 30.0))
    lumen = np.where(round_, 115.0 + 60.0 * draw(keys, 7), 85.0 + 50.0 * draw(keys, 7))
    axis = draw_directions(keys, 8) * length[:, None]
    return Organelles(middle - axis, middle + axis, radius, lumen)


def _closest_two(points: RealArray, curves: Curves) -> tuple[IndexArray, RealArray, RealArray]:
    """Rows (n, 2), values (n, 2) and closest points (n, 2, 3) of the two nearest curves of each point."""
    start, stop = curves.points_nm[:, :-1], curves.points_nm[:, 1:]
    rows = np.zeros((len(points), 2), np.int64)
    values = np.zeros((len(points), 2))
    closest = np.zeros((len(points), 2, 3))
    axis = stop - start
    square = (axis[..., 0] ** 2 + axis[..., 1] ** 2) + axis[..., 2] ** 2
    for index, point in enumerate(points):
        offset = point - start
        along = (offset[..., 0] * axis[..., 0] + offset[..., 1] * axis[..., 1]) + offset[..., 2] * axis[..., 2]
        t = np.minimum(np.maximum(along / square, 0.0), 1.0)
        rest = offset - axis * t[..., None]
        length = np.sqrt((rest[..., 0] ** 2 + rest[..., 1] ** 2) + rest[..., 2] ** 2)
        value = length - curves.weight_nm
        best = value.argmin(axis=1)
        per_curve = value[np.arange(len(value)), best]
        pair = np.argsort(per_curve, kind="stable")[:2]
        rows[index] = pair
        values[index] = per_curve[pair]
        closest[index] = (start + axis * t[..., None])[pair, best[pair]]
    return rows, values, closest


def _grow_synapses(seed: int, curves: Curves, low_nm: RealArray, high_nm: RealArray) -> Synapses:
    cells = cells_around(low_nm - SYNAPSE_REACH_NM, high_nm + SYNAPSE_REACH_NM, SYNAPSE_PITCH_NM)
    keys = hash_cells(stream_key(seed, 61), cells)
    alive = draw(keys, 0) < 0.6
    cells, keys = cells[alive], keys[alive]
    if len(curves.ids) < 2:
        cells, keys = cells[:0], keys[:0]
    jitter = np.stack([draw(keys, 1 + axis) for axis in range(3)], axis=1)
    middle = (cells + 0.2 + 0.6 * jitter) * SYNAPSE_PITCH_NM
    for _ in range(3):
        rows, values, closest = _closest_two(middle, curves)
        normal = unit(closest[:, 1] - closest[:, 0])
        middle = middle + normal * ((values[:, 1] - values[:, 0]) * 0.5)[:, None]
    rows, values, closest = _closest_two(middle, curves)
    normal = unit(closest[:, 1] - closest[:, 0])
    flat = (closest[:, 1] - middle) * normal
    opposed = (flat[:, 0] + flat[:, 1] + flat[:, 2]) > 60.0
    good = (values[:, 1] - values[:, 0] < 12.0) & opposed
    cells, keys, middle, normal, rows = cells[good], keys[good], middle[good], normal[good], rows[good]
    thin_first = curves.weight_nm[rows[:, 0]].min(axis=1) <= curves.weight_nm[rows[:, 1]].min(axis=1)
    sender = np.where(thin_first, rows[:, 0], rows[:, 1])
    receiver = np.where(thin_first, rows[:, 1], rows[:, 0])
    normal = np.where(thin_first[:, None], normal, -normal)
    vesicles = _place_vesicles(keys, middle, normal)
    number = 25 + np.floor(draw(keys, 6) * (_MAX_VESICLES - 25)).astype(np.int64)
    radius = 100.0 + 110.0 * draw(keys, 5)
    return Synapses(cell_ids(cells, _SYNAPSE_CLASS), middle, normal, radius, sender, receiver, vesicles, number)


def _place_vesicles(keys: HashArray, middle: RealArray, normal: RealArray) -> RealArray:
    """Scatter vesicles in a ball behind the sender's membrane, denser towards the membrane."""
    points = np.empty((len(keys), _MAX_VESICLES, 3))
    for index in range(_MAX_VESICLES):
        direction = draw_directions(keys, 200 + 5 * index)
        spread = draw(keys, 203 + 5 * index)
        lateral = direction * (40.0 + 170.0 * np.sqrt(spread))[:, None]
        height = 50.0 + 90.0 * draw(keys, 204 + 5 * index)
        points[:, index] = middle - normal * height[:, None] + lateral
    return points


def near_tile(
    points_nm: RealArray, low_nm: npt.NDArray[np.float64], high_nm: npt.NDArray[np.float64], reach_nm: float
) -> IndexArray:
    """Rows of the points within `reach_nm` of a box."""
    inside = (points_nm >= low_nm - reach_nm) & (points_nm <= high_nm + reach_nm)
    return np.flatnonzero(inside.all(axis=1))
