"""Scoring a stored segmentation against a stored truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pipeline.config.schema import StorageSection
from pipeline.evaluation import Scores, ValuesOnly, evaluate, place
from pipeline.geometry import Spacing
from pipeline.run.prepare import storage_options
from pipeline.run.region import parse_roi
from pipeline.storage import open_volume


def evaluate_stored(
    prediction_url: str,
    truth_url: str,
    *,
    roi: str | None = None,
    truth_values: tuple[int, ...] | None = None,
    voxel_size_zyx_nm: Spacing | None = None,
    hd95_cap_nm: float = 1000.0,
    storage: StorageSection | None = None,
    on_block: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> Scores:
    """Score a segmentation, block by block.

    Args:
        prediction_url: any label volume that can be read.
        truth_url: 0/1 or instances.
        roi: z0:z1,y0:y1,x0:x1 in voxels of the truth, at its finest level; default: where both have voxels.
        truth_values: labels of the truth that count, as one mask, where it holds several classes; default: all but 0.
        voxel_size_zyx_nm: in place of what the metadata of both says.
        hd95_cap_nm: surface distances are exact up to here; 0 skips HD95.
        storage: how stores are reached.
        on_block: told the part ("overlaps", then "surfaces"), the number of its blocks done and in all.

    Raises:
        UserError: the volumes do not overlap, or their voxel sizes do not fit.
        WorldError: a volume cannot be read.
    """
    options = storage_options(storage or StorageSection())
    prediction = open_volume(prediction_url, options, kind="labels")
    truth = open_volume(truth_url, options, kind="labels")
    region = None if roi is None else parse_roi(roi, truth.info.shape_zyx)
    placed = place(truth, "truth", voxel_size_zyx_nm, truth)
    if truth_values is not None:
        placed = replace(placed, volume=ValuesOnly(truth, truth_values))
    return evaluate(
        place(prediction, "prediction", voxel_size_zyx_nm, truth),
        placed,
        roi=region,
        hd95_cap_nm=hd95_cap_nm,
        on_block=on_block,
    )
