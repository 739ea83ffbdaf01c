"""Grey values as probabilities: the baseline that needs no model."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config.read import digest_of_section
from pipeline.config.schema import ThresholdSegmenter
from pipeline.geometry import Box, Spacing, Vector
from pipeline.segmenter.demand import BlockImage, SegmenterDemand, SegmenterIdentity

# A Gaussian beyond four sigma weighs less than 1e-4 of its center.
_GAUSSIAN_REACH_SIGMAS = 4.0


def describe_threshold(config: ThresholdSegmenter, source_voxel_size_nm: Spacing) -> SegmenterDemand:
    """State what the baseline needs: grey values as they are stored, and as far around as it smooths."""
    halo = _smoothing_halo(config.smoothing_nm, source_voxel_size_nm)

    def projected_bytes(core: Vector, domain: Vector) -> tuple[int, int]:
        voxels = math.prod(extent + 2 * grow for extent, grow in zip(core, halo, strict=True))
        # The image, its float copy while smoothing, and the result.
        return voxels * (1 + 4 * 2 * (config.smoothing_nm > 0) + 1), 0

    return SegmenterDemand(
        identity=SegmenterIdentity("threshold", "", digest_of_section(config)),
        class_names=(config.class_name,),
        thresholds=(0.5,),
        working_voxel_size_nm=None,
        accepted_voxel_size_nm=None,
        grey_fractions=None,
        unit_zyx=lambda domain: (1, 1, 1),
        takes_raw_grey=True,
        is_fused=True,
        context=lambda core, bounds, domain: core.grown(halo).intersection(bounds),
        projected_bytes=projected_bytes,
        model_voxels=lambda core, bounds, domain: core.num_voxels,
    )


def _smoothing_halo(smoothing_nm: float, voxel_size_nm: Spacing) -> Vector:
    reach_nm = _GAUSSIAN_REACH_SIGMAS * smoothing_nm
    return (
        math.ceil(reach_nm / voxel_size_nm[0]),
        math.ceil(reach_nm / voxel_size_nm[1]),
        math.ceil(reach_nm / voxel_size_nm[2]),
    )


class Threshold:
    """Bright or dark, smoothed or not."""

    def __init__(self, config: ThresholdSegmenter, voxel_size_nm: Spacing) -> None:
        self._is_dark = config.foreground == "dark"
        self._halo = _smoothing_halo(config.smoothing_nm, voxel_size_nm)
        self._sigma_voxels = tuple(config.smoothing_nm / size for size in voxel_size_nm)

    def predict(
        self, image: BlockImage, core: Box, bounds: Box, domain: Box, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """See `Segmenter.predict`."""
        grey = image.values_zyx
        if grey.dtype == np.uint16:
            grey = (grey >> 8).astype(np.uint8)
        if max(self._halo) > 0:
            smooth = ndimage.gaussian_filter(
                grey.astype(np.float32), self._sigma_voxels, mode="nearest", radius=self._halo
            )
            grey = np.rint(smooth).astype(np.uint8)
        inside = grey[core.relative_to(image.box.start).slices]
        return (np.uint8(255) - inside if self._is_dark else inside)[None]
