"""Signed distances of training volumes, as bytes: those of the truth, and those that a U-Net predicts.

    byte    0 .. 254   distance / tau from -1 to 1
            255        unknown: unlabelled, or so near to unlabelled voxels that a nearer surface may hide there

Source of both distances: `sam4em_core.sdf`, `sam4em_core.field`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import edt
import numpy as np

from sam4em_core.field import predict_field
from sam4em_core.header import unet_factors
from sam4em_core.lattice import LatticeGatherer
from sam4em_core.patches import patch_grid
from sam4em_core.sdf import halo_voxels, signed_distance
from sam4em_core.training.data import UNLABELLED, grey_of
from sam4em_core.training.resample import resample_float

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt
    import torch

    from sam4em_core.training.data import TrainingVolume, VoxelSize, WorkingVolume
    from sam4em_core.unet3d import UNet3d

UNKNOWN = 255
_HALF_RANGE = 127.0

# Slices whose distances are in memory at a time, beside their halo.
_SLAB_SLICES = 32

# Share of a voxel by which float32 may miss a tie.
_ROUNDING = 1e-3

# A voxel of the working lattice is known where all of what it covers is; resampling rounds in float32.
_WHOLE = 0.999


def encoded(field: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Distances / tau in [-1, 1] as bytes."""
    result: npt.NDArray[np.uint8] = np.rint((field + np.float32(1)) * np.float32(_HALF_RANGE)).astype(np.uint8)
    return result


def decoded(field: torch.Tensor) -> torch.Tensor:
    """Bytes as distances / tau, float32; NaN where they are unknown."""
    values = field.float() / _HALF_RANGE - 1.0
    return values.masked_fill(field == UNKNOWN, float("nan"))


def with_true_field(
    working: WorkingVolume, volume: TrainingVolume, working_zyx_nm: VoxelSize, tau_nm: float
) -> WorkingVolume:
    """Add the truth's signed distances, or those that the volume brings; between instances where it has their ids.

    They are computed at the truth's own voxel size and then resampled, so that the surface is not rounded to the
    working lattice. Only the train range is looked at.

    Args:
        working: the volume on the working lattice.
        volume: where it came from.
        working_zyx_nm: voxel size of the working lattice.
        tau_nm: distances are cut off here.
    """
    first, last = volume.train or (0, 0)
    lead_nm = working.first_slice * working_zyx_nm[0] - first * volume.voxel_size_zyx_nm[0]
    channels = []
    for index, labels_zyx in enumerate(volume.labels_czyx[:, first:last]):
        if volume.field_czyx is not None:
            field_zyx = volume.field_czyx[index, first:last]
        else:
            ids_zyx = (labels_zyx == 1) if volume.ids_czyx is None else volume.ids_czyx[index, first:last]
            field_zyx = true_field(ids_zyx, labels_zyx != UNLABELLED, volume.voxel_size_zyx_nm, tau_nm)
        channels.append(
            _resampled(field_zyx, volume.voxel_size_zyx_nm, working_zyx_nm, working.image_zyx.shape, lead_nm)
        )
    return replace(working, field_czyx=np.stack(channels))


def slabs(depth: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    """Cut a volume's slices into slabs: first slice and stop of each, without and with its halo."""
    for start in range(0, depth, _SLAB_SLICES):
        stop = min(depth, start + _SLAB_SLICES)
        yield start, stop, max(0, start - halo), min(depth, stop + halo)


def true_field(
    ids_zyx: npt.NDArray[np.bool_ | np.unsignedinteger],
    is_known_zyx: npt.NDArray[np.bool_],
    spacing_nm: VoxelSize,
    tau_nm: float,
) -> npt.NDArray[np.uint8]:
    """Compute signed distances slab by slab, as bytes.

    Args:
        ids_zyx: a mask or instance ids, 0 is background.
        is_known_zyx: where the truth is known.
        spacing_nm: voxel size.
        tau_nm: distances are cut off here.
    """
    result = np.empty(ids_zyx.shape, np.uint8)
    for start, stop, low, high in slabs(len(ids_zyx), halo_voxels(spacing_nm, tau_nm)[0]):
        field = signed_distance(ids_zyx[low:high], spacing_nm, tau_nm)
        codes = encoded(field)
        if not is_known_zyx[low:high].all():
            known = np.ascontiguousarray(is_known_zyx[low:high])
            to_unknown = edt.edt(known, anisotropy=spacing_nm, black_border=False, parallel=1)
            # A surface beside an unlabelled voxel would lie half a voxel before its center. Where both are as near, the
            # surface may be that of the unlabelled voxel itself.
            reach = np.abs(field) * np.float32(tau_nm) + np.float32(min(spacing_nm) * (0.5 + _ROUNDING))
            codes[reach > to_unknown] = UNKNOWN
        result[start:stop] = codes[start - low : stop - low]
    return result


def _resampled(
    field_zyx: npt.NDArray[np.uint8],
    source_nm: VoxelSize,
    working_nm: VoxelSize,
    shape: tuple[int, ...],
    lead_nm: float,
) -> npt.NDArray[np.uint8]:
    """Bring bytes to the working lattice; a voxel that covers an unknown one is unknown."""
    target = (shape[0], shape[1], shape[2])
    values = resample_float(field_zyx, source_nm, working_nm, target, lead_nm)
    result = np.rint(values).astype(np.uint8)
    is_unknown = field_zyx == UNKNOWN
    if is_unknown.any():
        result[resample_float(~is_unknown, source_nm, working_nm, target, lead_nm) < _WHOLE] = UNKNOWN
    return result


def with_predicted_field(working: WorkingVolume, network: UNet3d, working_zyx_nm: VoxelSize) -> WorkingVolume:
    """Add the signed distances that a U-Net predicts, through the same patches as a segmentation.

    Args:
        working: the volume on the working lattice.
        network: in eval mode.
        working_zyx_nm: voxel size of that lattice.
    """
    depth, height, width = working.image_zyx.shape
    start, stop = (0, 0, 0), (depth, height, width)
    grid = patch_grid(network.config, unet_factors(working_zyx_nm, network.config), (start, stop))
    gatherer = LatticeGatherer(grid, start, stop)
    for first in range(0, depth, gatherer.slab_slices):
        slab = working.image_zyx[first : first + gatherer.slab_slices]
        gatherer.add(grey_of(slab))
    field = predict_field(network, grid, gatherer.image(), start, stop)
    slabs = [
        encoded(field.inside((first, 0, 0), (min(depth, first + _SLAB_SLICES), height, width)))
        for first in range(0, depth, _SLAB_SLICES)
    ]
    return replace(working, field_czyx=np.concatenate(slabs, axis=1))
