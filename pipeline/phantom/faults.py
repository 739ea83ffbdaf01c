"""What the microscope adds: drift, noise, missing and damaged sections."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.phantom.field import Tile
from pipeline.phantom.hashing import (
    FloatArray,
    IndexArray,
    draw,
    gaussian_voxels,
    line_keys,
    smooth_noise,
    stream_key,
)
from pipeline.phantom.spec import PhantomSpec


def expose(spec: PhantomSpec, tile: Tile, grey_zyx: FloatArray) -> npt.NDArray[np.uint8]:
    """Turn ideal grey values into what the detector stores; `grey_zyx` is used up."""
    start, stop = tile.voxels.start, tile.voxels.stop
    z, y, x = (np.arange(a, b, dtype=np.int64) for a, b in zip(start, stop, strict=True))
    section = line_keys(stream_key(spec.seed, 50), z)
    _drift(spec, tile, grey_zyx, section)
    if spec.noise_sigma:
        noise = gaussian_voxels(stream_key(spec.seed, 52), (z, y, x))
        noise *= np.float32(spec.noise_grey)
        grey_zyx += noise
    _damage(spec, grey_zyx, section, y, x)
    missing = draw(section, 20) < spec.missing_section_fraction
    grey_zyx[missing] = 0
    grey_zyx += np.float32(0.5)
    np.clip(grey_zyx, np.float32(0), np.float32(255), out=grey_zyx)
    return grey_zyx.astype(np.uint8)


def _drift(spec: PhantomSpec, tile: Tile, grey: FloatArray, section: npt.NDArray[np.uint64]) -> None:
    """Let the brightness wander along z and across the plane, and jump a little between sections."""
    if not spec.contrast_drift_fraction:
        return
    gain = smooth_noise(stream_key(spec.seed, 51), tile.positions_nm, 6000.0)
    gain += ((draw(section, 1) - 0.5) * 0.6).astype(np.float32).reshape(-1, 1, 1)
    gain *= np.float32(spec.contrast_drift_fraction)
    gain += np.float32(1)
    grey *= gain


def _damage(spec: PhantomSpec, grey: FloatArray, section: npt.NDArray[np.uint64], y: IndexArray, x: IndexArray) -> None:
    """Put a dark fold, a bright charging band or a contrast step across some sections."""
    hit = np.flatnonzero(draw(section, 30) < spec.damaged_section_fraction)
    for index in hit:
        key = section[index : index + 1]
        kind = int(draw(key, 31)[0] * 3)
        slope = float(draw(key, 32)[0]) - 0.5
        period = 300.0 + 900.0 * float(draw(key, 33)[0])
        phase = (y[:, None] + x[None, :] * slope) / period + float(draw(key, 34)[0])
        band = np.abs(phase - np.floor(phase) - 0.5).astype(np.float32)
        if kind == 0:
            grey[index][band < 0.02] *= np.float32(0.25)
        elif kind == 1:
            grey[index] += np.maximum(np.float32(0), np.float32(0.15) - band) * np.float32(500.0)
        else:
            np.copyto(grey[index], grey[index] * np.float32(0.6) + np.float32(30.0), where=band < 0.25)
