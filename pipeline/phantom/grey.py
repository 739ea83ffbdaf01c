"""From ownership to grey values: cytoplasm, membranes, matrix and cristae.

Grey levels and widths are set by eye and by the histogram of a FIB-SEM volume at 5 nm (Lucchi et al. 2012):
cytoplasm about 165, matrix about 110, membranes about 90.
"""

from __future__ import annotations

import numpy as np

from pipeline.phantom.field import Tile
from pipeline.phantom.hashing import FloatArray, draw, draw_directions, smooth_noise, stream_key
from pipeline.phantom.scene import F, Scene
from pipeline.phantom.spec import PhantomSpec
from pipeline.phantom.specks import (
    paint_organelles,
    paint_synapses,
    paint_vesicle_field,
    paint_vesicles,
    ramp,
)

_SECTION_SHARE = 0.2
"""Part of a section's thickness over which an oblique membrane is smeared to each side."""


def paint(spec: PhantomSpec, scene: Scene) -> FloatArray:
    """Give the ideal grey values of a tile, float32 in about 0..255, without noise or faults."""
    fine, coarse = textures(spec, scene.tile)
    grey = _cytoplasm(spec, scene, fine, coarse)
    paint_organelles(scene, grey)
    paint_vesicle_field(spec, scene, grey)
    paint_vesicles(spec, scene, grey)
    paint_mitochondria(scene, grey, fine, coarse)
    blur = max(18.0, 1.2 * spec.voxel_size_zyx_nm[2])
    membrane = ramp(_membrane_distance(spec, scene), 4.0 + blur, 2.0)
    membrane *= F(90.0) - grey + coarse * F(6)
    grey += membrane
    paint_synapses(scene, grey, fine)
    return grey


def textures(spec: PhantomSpec, tile: Tile) -> tuple[FloatArray, FloatArray]:
    """Give the fine and the coarse noise that mottle everything in a tile."""
    fine = smooth_noise(stream_key(spec.seed, 43), tile.positions_nm, 16.0)
    return fine, smooth_noise(stream_key(spec.seed, 44), tile.positions_nm, 38.0)


def _membrane_distance(spec: PhantomSpec, scene: Scene) -> FloatArray:
    """Distance to the nearest membrane in nm: border minus sheet, divided by its slope.

    The border distance has a kink on the membrane, so a slope is the larger of the two one-sided differences.
    The tile's outermost voxels get one side only; they are never kept. What a membrane rises within a section
    counts as no distance: a thick section shows an oblique membrane as a wide band.
    """
    away = scene.territory.border_nm - scene.sheet_nm
    square = np.zeros_like(away)
    in_section = square
    for axis, size in enumerate(spec.voxel_size_zyx_nm):
        step = np.abs(np.diff(away, axis=axis))
        step *= F(1.0 / size)
        edge = [(0, 0), (0, 0), (0, 0)]
        edge[axis] = (1, 1)
        step = np.pad(step, edge)
        count = away.shape[axis]
        before = step[tuple(slice(0, count) if k == axis else slice(None) for k in range(3))]
        after = step[tuple(slice(1, count + 1) if k == axis else slice(None) for k in range(3))]
        larger = np.maximum(before, after)
        if axis == 0:
            in_section = np.minimum(larger, F(1)) * F(_SECTION_SHARE * size)
        larger *= larger
        square += larger
    slope = np.sqrt(square)
    np.clip(slope, F(0.3), F(1.2), out=slope)
    np.abs(away, out=away)
    away -= in_section
    np.maximum(away, F(0), out=away)
    away /= slope
    return away


def _cytoplasm(spec: PhantomSpec, scene: Scene, fine: FloatArray, coarse: FloatArray) -> FloatArray:
    """Base tone of each neurite and of glia, with a mottled texture."""
    keys = scene.curves.keys
    tone = 168.0 + 24.0 * (draw(keys, 15) - 0.5)
    tone = np.where(draw(keys, 16) < 0.08, tone - 45.0, tone)
    table = np.concatenate([tone, [180.0]]).astype(np.float32)
    grey = table[scene.territory.owner]
    np.copyto(grey, F(138.0), where=scene.glia())
    grey += fine * F(8.0)
    grey += coarse * F(6.0)
    speck = coarse + fine * F(0.7)
    speck -= F(0.9)
    np.maximum(speck, F(0), out=speck)
    speck *= F(-30.0)
    grey += speck
    return grey


def paint_mitochondria(scene: Scene, grey: FloatArray, fine: FloatArray, coarse: FloatArray) -> None:
    """Draw double membrane, matrix and cristae, on the voxels near a mitochondrion only.

    Tone and cristae belong to the scene's owners, so that a scene with other bodies has them painted alike.
    """
    where = np.flatnonzero(scene.depth_nm.ravel() < F(10))
    if not len(where):
        return
    depth = scene.depth_nm.ravel()[where]
    rows = scene.territory.owner.ravel()[where]
    soft, rough = coarse.ravel()[where], fine.ravel()[where]
    keys = scene.curves.keys
    normal = draw_directions(keys, 17)
    period = 36.0 + 30.0 * draw(keys, 20)
    base = (108.0 + 18.0 * (draw(keys, 21) - 0.5)).astype(np.float32)
    local = [(normal[:, axis] / period).astype(np.float32) for axis in range(3)]
    phase = (soft * F(11.0) / period.astype(np.float32)[rows]).astype(np.float32)
    for axis in range(3):
        shift = (scene.tile.center_nm[axis] * normal[:, axis] / period).astype(np.float64)
        start = (shift - np.floor(shift)).astype(np.float32)
        phase += scene.tile.tissue_nm[axis].ravel()[where] * local[axis][rows] + start[rows]
    saw = np.abs(phase - np.floor(phase) - F(0.5)) * F(2)
    inner = ramp(depth, -16.0, -26.0)
    tone = base[rows] + rough * F(6) + soft * F(4)
    strength = (0.35 + 0.8 * draw(keys, 22)).astype(np.float32)[rows] * ramp(soft, -1.3, 0.3)
    tone += (ramp(saw, 0.5, 0.15) * F(15) - ramp(saw, 0.6, 0.95) * F(22)) * inner * strength
    tone -= ramp(np.abs(depth + F(7)), 15.0, 2.0) * F(17)
    tone += ramp(np.abs(depth + F(17)), 8.0, 2.0) * F(7)
    share = ramp(depth, 5.0, -4.0)
    flat = grey.reshape(-1)
    flat[where] += (tone - flat[where]) * share
