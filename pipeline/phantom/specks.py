"""Grey values of the small things: organelles, vesicles, synaptic densities."""

from __future__ import annotations

import numpy as np

from pipeline.phantom.field import Tile
from pipeline.phantom.hashing import FloatArray, draw, hash_cells, stream_key
from pipeline.phantom.organelles import ORGANELLE_REACH_NM, SYNAPSE_REACH_NM, Organelles
from pipeline.phantom.scene import ACTIVE_NM, PSD_NM, F, Scene, length_of, offsets_to, part_near, tile_rows
from pipeline.phantom.spec import PhantomSpec

_VESICLE_RADIUS_NM = 19.0
_VESICLE_CELL_NM = 50.0
_VESICLE_MAX_VOXEL_NM = 12.0
"""Vesicles are not drawn at coarser voxels, which could not show them."""


def ramp(value: FloatArray, start: float, stop: float) -> FloatArray:
    """Rise smoothly from 0 at `start` to 1 at `stop` (start > stop falls)."""
    t = (value - F(start)) * F(1.0 / (stop - start))
    np.clip(t, F(0), F(1), out=t)
    return t * t * (F(3) - F(2) * t)


def paint_organelles(scene: Scene, grey: FloatArray) -> None:
    """Draw membrane-bound capsules inside the cytoplasm."""
    tile, items = scene.tile, scene.details.organelles
    room = ramp(scene.territory.border_nm - scene.sheet_nm, 14.0, 24.0)
    room *= ramp(scene.depth_nm, 6.0, 16.0)
    for row in tile_rows(tile, (items.start_nm + items.stop_nm) * 0.5, ORGANELLE_REACH_NM):
        _paint_capsule(tile, items, row, room, grey)


def _paint_capsule(tile: Tile, items: Organelles, row: int, room: FloatArray, grey: FloatArray) -> None:
    start, stop, radius = items.start_nm[row], items.stop_nm[row], float(items.radius_nm[row])
    part = part_near(tile, np.minimum(start, stop) - radius - 6.0, np.maximum(start, stop) + radius + 6.0)
    if any(cut.start == cut.stop for cut in part):
        return
    z, y, x = offsets_to(tile, start, part)
    axis = (stop - start).astype(np.float32)
    square = (axis[0] * axis[0] + axis[1] * axis[1]) + axis[2] * axis[2] + F(1e-3)
    t = np.clip((z * axis[0] + y * axis[1] + x * axis[2]) / square, F(0), F(1))
    depth = length_of((z - t * axis[0], y - t * axis[1], x - t * axis[2])) - F(radius)
    share = ramp(depth, 5.0, -3.0) * room[part]
    lumen = float(items.lumen_grey[row])
    tone = F(lumen) - ramp(np.abs(depth + F(5)), 10.0, 3.0) * F(lumen - 88.0)
    grey[part] += (tone - grey[part]) * share


def paint_vesicles(spec: PhantomSpec, scene: Scene, grey: FloatArray) -> None:
    """Draw the vesicles of every synapse near the tile, inside the sender only."""
    if max(spec.voxel_size_zyx_nm[1:]) > _VESICLE_MAX_VOXEL_NM:
        return
    tile, synapses = scene.tile, scene.details.synapses
    for row in tile_rows(tile, synapses.middle_nm, SYNAPSE_REACH_NM):
        room = ramp(scene.territory.border_nm - scene.sheet_nm, 16.0, 26.0)
        room *= scene.territory.owner == synapses.sender[row]
        if not room.any():
            continue
        centers = synapses.vesicles_nm[row, : synapses.num_vesicles[row]]
        for center in centers:
            part = part_near(tile, center - 26.0, center + 26.0)
            if any(cut.start == cut.stop for cut in part):
                continue
            depth = length_of(offsets_to(tile, center, part)) - F(_VESICLE_RADIUS_NM)
            share = ramp(depth, 5.0, -3.0) * room[part]
            tone = F(140.0) - ramp(np.abs(depth + F(5)), 9.0, 3.0) * F(48.0)
            grey[part] += (tone - grey[part]) * share


def paint_vesicle_field(spec: PhantomSpec, scene: Scene, grey: FloatArray) -> None:
    """Fill some axons with small vesicles, at most one per cell of a 50 nm lattice of tissue space."""
    if max(spec.voxel_size_zyx_nm[1:]) > _VESICLE_MAX_VOXEL_NM:
        return
    keys = scene.curves.keys
    density = np.where(draw(keys, 18) < 0.3, 0.35 + 0.5 * draw(keys, 19), 0.0)
    density = np.where(scene.curves.weight_nm.min(axis=1) > 0, 0.0, density)
    filled = np.concatenate([density > 0, [False]])[scene.territory.owner]
    filled &= scene.territory.border_nm - scene.sheet_nm > F(16)
    filled &= scene.depth_nm > F(6)
    where = np.flatnonzero(filled)
    if not len(where):
        return
    scaled = [
        (scene.tile.center_nm[axis] + scene.tile.tissue_nm[axis].ravel()[where]) * (1.0 / _VESICLE_CELL_NM)
        for axis in range(3)
    ]
    cells = [np.floor(coordinate) for coordinate in scaled]
    bits = hash_cells(stream_key(spec.seed, 62), np.stack(cells, axis=1).astype(np.int64))
    square = np.zeros(len(where), np.float32)
    for axis in range(3):
        jitter = ((bits >> np.uint64(12 * axis)) & np.uint64(0xFFF)).astype(np.float32) * F(0.36 / 4095.0)
        offset = ((scaled[axis] - cells[axis]) - 0.32).astype(np.float32) - jitter
        square += offset * offset
    chance = (bits >> np.uint64(44)).astype(np.float32) * F(2.0**-20)
    depth = np.sqrt(square) * F(_VESICLE_CELL_NM) - F(15.0)
    share = ramp(depth, 5.0, -3.0)
    share *= chance < density.astype(np.float32)[scene.territory.owner.ravel()[where]]
    tone = F(128.0) - ramp(np.abs(depth + F(5)), 10.0, 2.0) * F(34.0)
    flat = grey.reshape(-1)
    flat[where] += (tone - flat[where]) * share


def paint_synapses(scene: Scene, grey: FloatArray, fine: FloatArray) -> None:
    """Darken the postsynaptic density and the active zone."""
    tile, synapses, territory = scene.tile, scene.details.synapses, scene.territory
    for row in tile_rows(tile, synapses.middle_nm, SYNAPSE_REACH_NM):
        middle, radius = synapses.middle_nm[row], float(synapses.radius_nm[row])
        part = part_near(tile, middle - radius, middle + radius)
        near = ramp(length_of(offsets_to(tile, middle, part)), radius, radius - 40.0)
        sender, receiver = synapses.sender[row], synapses.receiver[row]
        owner, second, border = territory.owner[part], territory.second[part], territory.border_nm[part]
        dense = ramp(border, PSD_NM + 8.0, PSD_NM - 14.0) * ((owner == receiver) & (second == sender))
        dense += ramp(border, ACTIVE_NM + 6.0, ACTIVE_NM - 6.0) * ((owner == sender) & (second == receiver))
        grey[part] += (F(72.0) + fine[part] * F(5) - grey[part]) * dense * near
