"""What is where in one tile: neurites, glial sheets, mitochondria, synapses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.phantom.anatomy import Curves
from pipeline.phantom.field import Territory, Tile, divide, mito_depth
from pipeline.phantom.hashing import FloatArray, IndexArray, RealArray, smooth_noise, stream_key
from pipeline.phantom.organelles import SYNAPSE_REACH_NM, Details, Synapses, near_tile
from pipeline.phantom.spec import PhantomSpec

F = np.float32
LabelArray = npt.NDArray[np.uint64]
Slices = tuple[slice, slice, slice]

_SHEET_MIN_NM = 12.0
"""A gap wider than twice this is glia, a narrower one the extracellular cleft."""
PSD_NM = 38.0
"""Depth of the postsynaptic density."""
ACTIVE_NM = 16.0
"""Depth of the active zone on the sender's side."""


@dataclass(frozen=True)
class Scene:
    """What is where in one tile."""

    tile: Tile
    curves: Curves
    details: Details
    territory: Territory
    sheet_nm: FloatArray
    """Half the width of the glial sheet (or cleft) between the two nearest curves."""
    depth_nm: FloatArray
    """Signed depth of mitochondria, negative inside."""
    synapse: npt.NDArray[np.int32]
    """Row of the synapse, -1 elsewhere."""

    @classmethod
    def compose(cls, spec: PhantomSpec, tile: Tile, curves: Curves, details: Details) -> Scene:
        """Compute ownership, sheets, mitochondria and synapses."""
        wobble = smooth_noise(stream_key(spec.seed, 41), tile.positions_nm, 190.0)
        wobble *= F(0.13)
        np.clip(wobble, F(-0.45), F(0.45), out=wobble)
        territory = divide(tile, curves, wobble)
        sheet = smooth_noise(stream_key(spec.seed, 42), tile.positions_nm, 700.0)
        sheet -= F(0.4)
        sheet *= F(36.0)
        np.clip(sheet, F(0), F(50), out=sheet)
        nearby = tile_rows(tile, details.synapses.middle_nm, SYNAPSE_REACH_NM)
        for row in nearby:
            _press_sheet(tile, details.synapses, row, sheet)
        np.minimum(sheet, np.maximum(territory.axis_nm * F(0.7), F(0)), out=sheet)
        depth = mito_depth(territory.border_nm - sheet, territory.axis_nm)
        synapse = np.full(tile.voxels.shape, -1, np.int32)
        for row in nearby:
            _mark_synapse(tile, territory, details.synapses, row, synapse)
        return cls(tile, curves, details, territory, sheet, depth, synapse)

    def glia(self) -> npt.NDArray[np.bool_]:
        """Where astrocytic sheets are."""
        inside = self.territory.border_nm < self.sheet_nm
        inside &= self.sheet_nm > F(_SHEET_MIN_NM)
        return inside

    def labels(self, layer: str) -> LabelArray:
        """Give one layer of ids, 0 elsewhere."""
        rows: npt.NDArray[np.int32] = self.territory.owner
        ids = self.curves.ids
        if layer == "glia":
            return self.glia().astype(np.uint64)
        if layer == "neurites":
            rows = np.where(self.glia(), np.int32(-1), rows)
        elif layer == "mitochondria":
            rows = np.where(self.depth_nm < 0, rows, np.int32(-1))
        else:
            rows, ids = self.synapse, self.details.synapses.ids
        table = np.concatenate([ids, np.zeros(1, np.uint64)])
        return table[rows]


def tile_rows(tile: Tile, points_nm: RealArray, reach_nm: float) -> IndexArray:
    """Rows of the points near the tile's voxels, in tissue space."""
    low = tile.center_nm + np.array([float(least.min()) for least, _ in tile.extremes_nm])
    high = tile.center_nm + np.array([float(most.max()) for _, most in tile.extremes_nm])
    return near_tile(points_nm, low, high, reach_nm)


def offsets_to(tile: Tile, point_nm: RealArray, part: Slices) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Vectors from a point of tissue space to the voxels of a part of the tile."""
    local = (point_nm - tile.center_nm).astype(np.float32)
    z, y, x = (u[part] - p for u, p in zip(tile.tissue_nm, local, strict=True))
    return z, y, x


def part_near(tile: Tile, low_nm: RealArray, high_nm: RealArray) -> Slices:
    """Cut out the voxels that may show a box of tissue space: a superset, by the tile's extreme warps."""
    parts = []
    for axis in range(3):
        least, most = tile.extremes_nm[axis]
        low, high = low_nm[axis] - tile.center_nm[axis], high_nm[axis] - tile.center_nm[axis]
        hit = np.flatnonzero((most >= low) & (least <= high))
        parts.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0))
    return parts[0], parts[1], parts[2]


def length_of(offsets: tuple[FloatArray, FloatArray, FloatArray]) -> FloatArray:
    """Length of every vector, in nm."""
    z, y, x = offsets
    result: FloatArray = np.sqrt(z * z + y * y + x * x)
    return result


def _press_sheet(tile: Tile, synapses: Synapses, row: int, sheet: FloatArray) -> None:
    """Keep glia out of a synaptic cleft."""
    middle, reach = synapses.middle_nm[row], float(synapses.radius_nm[row]) + 120.0
    part = part_near(tile, middle - reach, middle + reach)
    distance = length_of(offsets_to(tile, middle, part))
    room = np.maximum((distance - F(synapses.radius_nm[row] + 20.0)) * F(0.75), F(0))
    np.minimum(sheet[part], room, out=sheet[part])


def _mark_synapse(tile: Tile, territory: Territory, synapses: Synapses, row: int, out: npt.NDArray[np.int32]) -> None:
    """Write the row of a synapse where its membranes and density are."""
    middle, radius = synapses.middle_nm[row], float(synapses.radius_nm[row])
    part = part_near(tile, middle - radius, middle + radius)
    near = length_of(offsets_to(tile, middle, part)) < F(radius)
    owner, second, border = territory.owner[part], territory.second[part], territory.border_nm[part]
    sender, receiver = synapses.sender[row], synapses.receiver[row]
    inside = (owner == sender) & (second == receiver) & (border < F(ACTIVE_NM))
    inside |= (owner == receiver) & (second == sender) & (border < F(PSD_NM))
    out[part][inside & near] = row
