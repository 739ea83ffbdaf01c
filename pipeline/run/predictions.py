"""Where the predictions lie that a run keeps as volumes: one per kind and class, beside the first output.

    OUTPUT.predictions/probability-CLASS.zarr    uint8, 255 is a probability of 1
    OUTPUT.predictions/distance-CLASS.zarr       uint8, 0 is -tau, 255 is +tau, from 128 on inside

They have the voxels of the working lattice. A block of the predict stage writes whole chunks, and is their only writer.
"""

from __future__ import annotations

from typing import Final

from pipeline.errors import ConfigError
from pipeline.geometry import Spacing
from pipeline.segmenter import SegmenterDemand
from pipeline.stages.layout import require_predict_grid, scratch_chunk
from pipeline.stages.plan import PredictionPlan, RunPlan
from pipeline.storage import ImageSpec

FOLDER_SUFFIX: Final = ".predictions"


def predictions_url(output_url: str) -> str:
    """Give the folder of the predictions that belong to an output."""
    return output_url.rstrip("/") + FOLDER_SUFFIX


def prediction_plans(
    plan: RunPlan, demand: SegmenterDemand, volume_corner_nm: Spacing | None
) -> tuple[PredictionPlan, ...]:
    """Plan the volumes that a config asks for.

    Args:
        plan: with its grids.
        demand: what the segmenter gives.
        volume_corner_nm: lower corner of the image's first voxel; None: half a voxel before 0.

    Raises:
        ConfigError: the segmenter predicts no such thing, or stores nothing.
    """
    wanted = plan.config.predictions
    if not (wanted.probabilities or wanted.distances):
        return ()
    if plan.predict_grid is None:
        raise ConfigError(
            f"predictions: segmenter {plan.config.segmenter.kind!r} stores no predictions; they are for models"
        )
    if wanted.distances and demand.sdf_tau_nm is None:
        raise ConfigError(
            f"predictions.distances: {demand.identity.name!r} predicts no signed distances (memory: sdf does)"
        )
    kinds = [("probability", 0)] if wanted.probabilities else []
    kinds += [("distance", len(plan.class_names))] if wanted.distances else []
    return tuple(
        PredictionPlan(first + rule.channel, _spec(plan, f"{kind}-{rule.name}", volume_corner_nm))
        for kind, first in kinds
        for rule in plan.classes
    )


def _spec(plan: RunPlan, name: str, volume_corner_nm: Spacing | None) -> ImageSpec:
    source = plan.source_voxel_size_nm
    corner = volume_corner_nm or (-source[0] / 2, -source[1] / 2, -source[2] / 2)
    z, y, x = (start + first * size for start, first, size in zip(corner, plan.source_origin_zyx, source, strict=True))
    return ImageSpec(
        url=f"{predictions_url(plan.config.outputs[0].url)}/{name}.zarr",
        shape_zyx=plan.working_domain.shape,
        dtype="uint8",
        voxel_size_zyx_nm=plan.working_voxel_size_nm,
        chunk_zyx=scratch_chunk(require_predict_grid(plan).core),
        name=name,
        corner_zyx_nm=(z, y, x),
    )
