"""Scores of one class on the report slices, at the image's own voxels, from counts over the volume.

Everything but the z-consistency comes from `pipeline.evaluation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sets import UNLABELLED

from pipeline.evaluation import Placed, evaluate
from pipeline.labels.instances import label_components
from sam4em_core.training.scores import ClassScore, best_threshold, count_overlap

if TYPE_CHECKING:
    import numpy.typing as npt
    from sets import Nanometers

    from pipeline.geometry import Box

THRESHOLDS = tuple(round(0.05 * index, 2) for index in range(1, 20))
"""Candidates for the threshold of a class."""
HD95_CAP_NM = 1000.0
"""Surface distances are exact up to here."""


@dataclass(frozen=True)
class ArrayVolume:
    """Labels in memory, as evaluation reads them."""

    labels_zyx: npt.NDArray[Any]
    """Labels, 0 background."""

    def read(self, box: Box) -> npt.NDArray[Any]:
        """Read the voxels of a box."""
        return self.labels_zyx[box.slices]


def calibrate(probability_zyx: npt.NDArray[np.float32], truth_zyx: npt.NDArray[np.uint8]) -> ClassScore:
    """Choose the threshold with the highest IoU on the choose slices."""
    counts = [count_overlap(probability_zyx, truth_zyx, threshold, UNLABELLED) for threshold in THRESHOLDS]
    return best_threshold(THRESHOLDS, counts)


def score_class(
    mask_zyx: npt.NDArray[np.bool_],
    truth_zyx: npt.NDArray[np.uint8],
    voxel_size_zyx_nm: Nanometers,
    *,
    has_objects: bool,
    objects_zyx: npt.NDArray[Any] | None,
    min_object_voxels: int,
) -> dict[str, Any]:
    """Score one class.

    Args:
        mask_zyx: what was predicted.
        truth_zyx: 0 or 1.
        voxel_size_zyx_nm: of both.
        has_objects: whether AP and VOI mean anything.
        objects_zyx: true objects; None: the components of the truth.
        min_object_voxels: smaller objects are left out of AP and VOI on both sides.

    Returns:
        `dice`, `iou`, `precision`, `recall`, `hd95_nm`, `hd95_at_least`, `z_consistency`, and with objects `ap50`,
        `ap75`, `voi_split_bits`, `voi_merge_bits`, `num_predicted`, `num_true`.
    """
    truth = truth_zyx == 1
    whole = _evaluated(mask_zyx, truth, voxel_size_zyx_nm, HD95_CAP_NM)
    names = ("dice", "iou", "precision", "recall", "hd95_nm", "hd95_at_least")
    result = {name: whole[name] for name in names}
    result["z_consistency"] = z_consistency(mask_zyx, truth)
    if not has_objects:
        return result
    predicted = without_small(label_components(mask_zyx), min_object_voxels)
    true = without_small(label_components(truth) if objects_zyx is None else objects_zyx, min_object_voxels)
    scores = _evaluated(predicted, true, voxel_size_zyx_nm, 0.0)
    instances = scores["instances"] or {}
    for name in ("ap50", "ap75", "voi_split_bits", "voi_merge_bits"):
        result[name] = instances.get(name)
    return {**result, "num_predicted": scores["num_predicted"], "num_true": scores["num_true"]}


def _evaluated(
    prediction_zyx: npt.NDArray[Any], truth_zyx: npt.NDArray[Any], size: Nanometers, cap_nm: float
) -> dict[str, Any]:
    z, y, x = truth_zyx.shape
    placed = [
        Placed(ArrayVolume(labels), (z, y, x), size, name=name)
        for labels, name in ((prediction_zyx, "prediction"), (truth_zyx, "truth"))
    ]
    return evaluate(placed[0], placed[1], hd95_cap_nm=cap_nm).as_dict()


def without_small(labels_zyx: npt.NDArray[Any], min_voxels: int) -> npt.NDArray[np.uint32]:
    """Drop the objects with fewer voxels, and number the others from 1."""
    ids, inverse, sizes = np.unique(labels_zyx, return_inverse=True, return_counts=True)
    kept = (ids != 0) & (sizes >= min_voxels)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    result: npt.NDArray[np.uint32] = numbers[inverse].reshape(labels_zyx.shape)
    return result


def mean_neighbor_iou(mask_zyx: npt.NDArray[np.bool_]) -> float | None:
    """Average the IoU of neighboring slices' masks; pairs without a voxel are left out, None where all are."""
    below, above = mask_zyx[:-1], mask_zyx[1:]
    shared = np.count_nonzero(below & above, axis=(1, 2))
    either = np.count_nonzero(below | above, axis=(1, 2))
    if not either.any():
        return None
    return float((shared[either > 0] / either[either > 0]).mean())


def z_consistency(mask_zyx: npt.NDArray[np.bool_], truth_zyx: npt.NDArray[np.bool_]) -> float | None:
    """Neighboring slices' mean IoU, relative to the truth's own: below 1 flickers, above 1 is smoother than truth.

    Returns:
        None where one side has no pair of slices with a voxel, or the truth's neighbors share none.
    """
    found, wanted = mean_neighbor_iou(mask_zyx), mean_neighbor_iou(truth_zyx)
    return found / wanted if found is not None and wanted else None
