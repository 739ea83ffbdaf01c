"""Everything the driver finds out before the first task: image, model, grey range, plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.config import RunConfig
from pipeline.config.schema import StorageSection
from pipeline.geometry import Box, Spacing, Vector
from pipeline.image import GreyRange
from pipeline.image.grey import count_grey_values, histogram_range
from pipeline.run.outputs import run_url_of
from pipeline.run.planner import make_plan
from pipeline.run.region import nearest_level, parse_roi
from pipeline.segmenter import SegmenterDemand, describe_segmenter, require_accepted
from pipeline.stages.context import open_mask
from pipeline.stages.plan import RunPlan
from pipeline.storage import StorageOptions, Volume, open_volume
from pipeline.storage.volume import VoxelArray

# 64 boxes of 64 voxels a side: 16.8 million voxels, enough for percentiles, read in seconds from any store.
_SAMPLES_PER_AXIS = 4
_SAMPLE_VOXELS = 64


@dataclass(frozen=True)
class PreparedRun:
    """A plan and what it was made from."""

    plan: RunPlan
    """What the stages follow."""
    demand: SegmenterDemand
    """What the segmenter needs and who it is."""
    image_fingerprint: str
    """Identifies the image without reading its voxels."""


def storage_options(section: StorageSection) -> StorageOptions:
    """Turn the config's section into the storage room's own options."""
    return StorageOptions(
        endpoint_url=section.endpoint_url,
        region=section.region,
        credentials=section.credentials,
        timeout_s=section.timeout_s,
    )


def prepare_run(config: RunConfig) -> PreparedRun:
    """Open the image, describe the model, measure the grey range and plan.

    Args:
        config: the resolved config.

    Raises:
        UserError: config, region or plan cannot be used.
        WorldError: the image cannot be read.
        WeightsError: the model cannot be read.
    """
    options = storage_options(config.storage)
    section = config.image
    finest = open_volume(section.url, options, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    open_mask(section, options)
    demand = describe_segmenter(config.segmenter, finest.require_voxel_size())
    level = nearest_level(finest.info, demand.working_voxel_size_nm) if section.level is None else section.level
    volume = finest
    if level:
        volume = open_volume(section.url, options, voxel_size_zyx_nm=section.voxel_size_zyx_nm, level=level)
    source_nm: Spacing = volume.require_voxel_size()
    require_accepted(demand, config.segmenter, source_nm)
    roi = parse_roi(section.roi, finest.info.shape_zyx)
    grey_range = measure_grey_range(volume, roi, finest.info.shape_zyx, demand.grey_fractions)
    plan = make_plan(config, volume.info, source_nm, demand, grey_range, run_url_of(config))
    return PreparedRun(plan, demand, volume.fingerprint())


def measure_grey_range(
    volume: Volume, roi: Box, full_shape: Vector, fractions: tuple[float, float] | None
) -> GreyRange:
    """Measure the grey values that map to 0 and 1 on a fixed sample of the region of interest.

    Args:
        volume: the image at the level that is read.
        roi: the region in voxels of the full volume.
        full_shape: shape of the full volume.
        fractions: fractions of the voxels below the values that map to 0 and 1; None: the dtype's range.
    """
    if fractions is None:
        return GreyRange(0.0, float(np.iinfo(volume.info.dtype).max))
    shape = volume.info.shape_zyx
    start = [roi.start[axis] * shape[axis] // full_shape[axis] for axis in range(3)]
    stop = [max(start[axis] + 1, roi.stop[axis] * shape[axis] // full_shape[axis]) for axis in range(3)]
    region = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).intersection(Box.of_shape(shape))
    pieces: Iterator[VoxelArray] = (volume.read(box) for box in sample_boxes(region))
    return histogram_range(count_grey_values(pieces, volume.info.dtype), *fractions)


def sample_boxes(region: Box) -> Iterator[Box]:
    """Yield boxes spread evenly over a region; they do not overlap and depend on the region alone."""
    steps = [min(_SAMPLES_PER_AXIS, max(1, extent // _SAMPLE_VOXELS)) for extent in region.shape]
    size = [min(_SAMPLE_VOXELS, extent // step) for extent, step in zip(region.shape, steps, strict=True)]
    for z in range(steps[0]):
        for y in range(steps[1]):
            for x in range(steps[2]):
                cell = (z, y, x)
                start = [
                    region.start[axis]
                    + (2 * cell[axis] + 1) * region.shape[axis] // (2 * steps[axis])
                    - size[axis] // 2
                    for axis in range(3)
                ]
                yield Box.of_shape((size[0], size[1], size[2]), (start[0], start[1], start[2]))
