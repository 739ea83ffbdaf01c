"""Grey values: resampling on volume-anchored lattices, grey ranges, smoothing."""

from pipeline.image.grey import GreyRange, rescale
from pipeline.image.resample import SLAB_SLICES, resample

__all__ = ["SLAB_SLICES", "GreyRange", "resample", "rescale"]
