"""Which voxels a run reads: the pyramid level, and the region of interest on it and on the output lattice."""

from __future__ import annotations

import math

from pipeline.config import RunConfig
from pipeline.errors import PlanError, UserError
from pipeline.geometry import Box, Spacing, Vector, covering_box
from pipeline.storage import VolumeInfo


def nearest_level(info: VolumeInfo, working_nm: Spacing | None) -> int:
    """Choose the pyramid level whose voxel size is nearest to the model's, as a ratio.

    Args:
        info: the image, with the sizes of all its levels.
        working_nm: the model's voxel size; None: level 0.
    """
    if working_nm is None:
        return 0

    def distance(level: int) -> float:
        size = info.levels[level].voxel_size_zyx_nm
        if size is None:
            return math.inf if level else 0.0
        return sum(abs(math.log(a / b)) for a, b in zip(size, working_nm, strict=True))

    return min(range(len(info.levels)), key=distance)


def parse_roi(text: str | None, shape_zyx: Vector) -> Box:
    """Read `z0:z1,y0:y1,x0:x1` in voxels of the full volume.

    Raises:
        UserError: the region is empty or reaches outside the volume.
    """
    whole = Box.of_shape(shape_zyx)
    if text is None:
        return whole
    try:
        ranges = [tuple(int(part) for part in axis.split(":")) for axis in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = ranges
    except ValueError as error:
        raise UserError(f"region {text!r}: expected z0:z1,y0:y1,x0:x1 in voxels") from error
    if z1 <= z0 or y1 <= y0 or x1 <= x0:
        raise UserError(f"region {text} holds no voxel; every stop must be above its start")
    roi = Box((z0, y0, x0), (z1, y1, x1))
    if not whole.contains(roi):
        raise UserError(f"region {text} reaches outside the volume, which is {whole}")
    return roi


def source_roi(config: RunConfig, info: VolumeInfo, source_nm: Spacing) -> Box:
    """Give the region of interest in voxels of the level that is read.

    Raises:
        UserError: see `parse_roi`.
    """
    finest = info.levels[0]
    roi = parse_roi(config.image.roi, finest.shape_zyx)
    if info.level == 0:
        return roi
    shrink = [round(full / part) for full, part in zip(finest.shape_zyx, info.shape_zyx, strict=True)]
    if finest.voxel_size_zyx_nm is not None:
        shrink = [round(a / b) for a, b in zip(source_nm, finest.voxel_size_zyx_nm, strict=True)]
    scale = (float(shrink[0]), float(shrink[1]), float(shrink[2]))
    return covering_box(roi, scale).intersection(Box.of_shape(info.shape_zyx))


def output_offset(roi: Box, source_nm: Spacing, output_nm: Spacing) -> Vector:
    """Give the region's first voxel in voxels of the output lattice.

    Raises:
        PlanError: it is no whole number of them.
    """
    offset = [start * a / b for start, a, b in zip(roi.start, source_nm, output_nm, strict=True)]
    if any(abs(value - round(value)) > 1e-6 for value in offset):
        raise PlanError(
            f"region of interest starts at {roi.start} voxels of {source_nm} nm, which is no whole number of output "
            f"voxels of {output_nm} nm; move the region or change plan.output_voxel_size_zyx_nm"
        )
    return (round(offset[0]), round(offset[1]), round(offset[2]))
