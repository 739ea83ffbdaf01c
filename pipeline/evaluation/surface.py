"""Distances between the surfaces of two masks, block by block and exact up to a cap."""

from __future__ import annotations

from collections.abc import Iterable

import edt
import numpy as np
import numpy.typing as npt

from pipeline.evaluation.placement import Nanometers, OnGrid
from pipeline.geometry import Box
from pipeline.labels.scores import DistanceHistogram, SurfaceScore, hausdorff_95

MaskArray = npt.NDArray[np.bool_]

_FIRST_HALO_NM = 100.0
"""Surfaces are first looked for this near; the halo is doubled for the voxels that found none."""


def measure_surface(
    prediction: OnGrid, truth: OnGrid, cores: Iterable[Box], domain: Box, size: Nanometers, cap_nm: float
) -> SurfaceScore | None:
    """Measure both directed surface distances over the blocks of a domain."""
    to_truth = to_prediction = DistanceHistogram.empty(cap_nm)
    for core in cores:
        to_truth = _add_distances(to_truth, prediction, truth, core, domain, size)
        to_prediction = _add_distances(to_prediction, truth, prediction, core, domain, size)
    return hausdorff_95(to_truth, to_prediction)


def _read_surface(volume: OnGrid, box: Box, domain: Box) -> MaskArray:
    """Mark the object voxels that share a face with background, inside a box.

    The edge of the domain is no surface: an object cut by it goes on outside.
    """
    wide = box.grown((1, 1, 1)).intersection(domain)
    mask = volume.read(wide) != 0
    inner = mask.copy()
    for axis in range(3):
        lower = [slice(None)] * 3
        upper = [slice(None)] * 3
        lower[axis], upper[axis] = slice(None, -1), slice(1, None)
        inner[tuple(lower)] &= mask[tuple(upper)]
        inner[tuple(upper)] &= mask[tuple(lower)]
    mask &= ~inner
    return mask[box.relative_to(wide.start).slices]


def _add_distances(
    histogram: DistanceHistogram, source: OnGrid, target: OnGrid, core: Box, domain: Box, size: Nanometers
) -> DistanceHistogram:
    """Count the distance from each surface voxel of `source` in a block to the nearest one of `target`.

    A distance is exact where it is at most the halo, so the halo grows only for the voxels that need it.
    """
    todo = _read_surface(source, core, domain)
    halo_nm = min(_FIRST_HALO_NM, histogram.cap_nm)
    while todo.any():
        part = _bounds(todo, core)
        reach = tuple(int(np.ceil(halo_nm / step)) for step in size)
        wide = part.grown((reach[0], reach[1], reach[2])).intersection(domain)
        inside = part.relative_to(core.start).slices
        wanted = todo[inside]
        distance = _distances(_read_surface(target, wide, domain), part.relative_to(wide.start), size)[wanted]
        found = distance <= halo_nm
        histogram = histogram.plus(distance[found])
        todo[inside][wanted] = ~found
        if halo_nm >= histogram.cap_nm or wide == domain:
            rest = distance[~found]
            return histogram.plus(rest[np.isfinite(rest)], int(np.isinf(rest).sum()))
        halo_nm = min(2 * halo_nm, histogram.cap_nm)
    return histogram


def _distances(surface: MaskArray, part: Box, size: Nanometers) -> npt.NDArray[np.float64]:
    """Distance in nm from each voxel of a part to the nearest surface voxel; infinite where there is none."""
    if not surface.any():
        return np.full(part.shape, np.inf)
    square = edt.edtsq(~surface, anisotropy=size, black_border=False, order="C", parallel=1)
    distance: npt.NDArray[np.float64] = np.sqrt(square[part.slices].astype(np.float64))
    return distance


def _bounds(mask: MaskArray, core: Box) -> Box:
    """Smallest box around the true voxels of a block."""
    start, stop = [], []
    for axis in range(3):
        rest = tuple(k for k in range(3) if k != axis)
        hits = np.flatnonzero(mask.any(axis=rest))
        start.append(int(hits[0]))
        stop.append(int(hits[-1]) + 1)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).shifted(core.start)
