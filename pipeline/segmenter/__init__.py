"""The seam between the pipeline and the models: the only door to `sam4em_core` at inference.

    describe_segmenter(config, ...)   what a model needs, before any worker or accelerator exists
    load_segmenter(config, ...)       the model itself, once per worker

A segmenter turns grey values into probabilities; how probabilities become objects is the label stage's affair.
"""

from __future__ import annotations

from pipeline.config.schema import Sam4emSegmenter, ThresholdSegmenter
from pipeline.errors import PlanError
from pipeline.geometry import Spacing
from pipeline.segmenter.demand import BlockImage, CoarseImage, Segmenter, SegmenterDemand, SegmenterIdentity
from pipeline.segmenter.models import (
    core_errors,
    count_gpus,
    describe_model,
    model_header,
    model_path,
    shipped_models,
    shipped_unets,
)
from pipeline.segmenter.network import describe_network, load_network
from pipeline.segmenter.threshold import Threshold, describe_threshold

__all__ = [
    "BlockImage",
    "CoarseImage",
    "Segmenter",
    "SegmenterConfig",
    "SegmenterDemand",
    "SegmenterIdentity",
    "core_errors",
    "count_gpus",
    "describe_model",
    "describe_segmenter",
    "load_segmenter",
    "model_header",
    "model_path",
    "require_accepted",
    "shipped_models",
    "shipped_unets",
]

SegmenterConfig = ThresholdSegmenter | Sam4emSegmenter


def describe_segmenter(config: SegmenterConfig, source_voxel_size_nm: Spacing) -> SegmenterDemand:
    """State what a segmenter needs, without loading it.

    Args:
        config: the segmenter's section.
        source_voxel_size_nm: voxel size of the image.

    Raises:
        WeightsError: the model file is missing or unreadable.
    """
    if isinstance(config, ThresholdSegmenter):
        return describe_threshold(config, source_voxel_size_nm)
    return describe_network(config)


def require_accepted(demand: SegmenterDemand, config: SegmenterConfig, source_voxel_size_nm: Spacing) -> None:
    """Refuse an image that the model was not made for, unless the config insists.

    Raises:
        PlanError: the voxel size of the level that is read lies outside the accepted range.
    """
    if demand.accepted_voxel_size_nm is None or isinstance(config, ThresholdSegmenter) or config.force_voxel_size:
        return
    low, high = demand.accepted_voxel_size_nm
    if not all(low <= size <= high for size in source_voxel_size_nm):
        raise PlanError(
            f"model {config.model!r} was made for voxels of {low:g} to {high:g} nm, the image has "
            f"{source_voxel_size_nm} nm (z, y, x); choose another model or pyramid level, or --force-voxel-size"
        )


def load_segmenter(config: SegmenterConfig, source_voxel_size_nm: Spacing) -> Segmenter:
    """Load a segmenter; called once per worker.

    Raises:
        WeightsError: the weights are unreadable or belong to another architecture.
    """
    if isinstance(config, ThresholdSegmenter):
        return Threshold(config, source_voxel_size_nm)
    return load_network(config)
