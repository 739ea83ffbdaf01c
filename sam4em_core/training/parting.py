"""Objects that touch: where a U-Net is taught and chosen by its zero level, the voxels along their faces lie outside.

labels        1 1 1 1 1 1 1 1        the mask knows no surface between two objects, and asks for depth there
ids           4 4 4 4 7 7 7 7        distances between objects fall to zero
with faces    1 1 1 0 0 1 1 1        now the mask asks for what the distances ask for
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sam4em_core.sdf import halo_voxels, signed_distance
from sam4em_core.training.fields import slabs

if TYPE_CHECKING:
    import numpy.typing as npt

    from sam4em_core.training.data import TrainingVolume, VoxelSize


def with_faces_outside(volume: TrainingVolume, width_nm: float) -> TrainingVolume:
    """Take the faces between instances out of a volume's labels.

    Args:
        volume: checked; where it has no ids it comes back as it is.
        width_nm: voxels nearer than this to another object are outside, unless the surface of the mask is as near. At
            least the voxel of the working lattice, or resampling closes faces again.

    Returns:
        The volume with other labels; its ids, and so its distances, stay.
    """
    if volume.ids_czyx is None:
        return volume
    pairs = zip(volume.labels_czyx, volume.ids_czyx, strict=True)
    parted = [_parted(labels, ids, volume.voxel_size_zyx_nm, width_nm) for labels, ids in pairs]
    return replace(volume, labels_czyx=np.stack(parted))


def _parted(
    labels_zyx: npt.NDArray[np.uint8], ids_zyx: npt.NDArray[np.unsignedinteger], spacing_nm: VoxelSize, width_nm: float
) -> npt.NDArray[np.uint8]:
    tau_nm = 2 * max(width_nm, min(spacing_nm))
    result = labels_zyx.copy()
    for start, stop, low, high in slabs(len(labels_zyx), halo_voxels(spacing_nm, tau_nm)[0]):
        ids = ids_zyx[low:high]
        to_any, to_outside = (signed_distance(each, spacing_nm, tau_nm) * tau_nm for each in (ids, ids != 0))
        face = (to_any > 0) & (to_any < width_nm) & (to_any < to_outside)
        result[start:stop][face[start - low : stop - low]] = 0
    return result
