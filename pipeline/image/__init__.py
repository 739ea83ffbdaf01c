"""Grey values: resampling on volume-anchored lattices, grey ranges, smoothing."""

from pipeline.image.grey import GreyRange, rescale
from pipeline.image.resample import resample

__all__ = ["GreyRange", "resample", "rescale"]
