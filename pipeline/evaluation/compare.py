"""Walks over the blocks of both volumes and gathers the counts that the scores are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.errors import UserError
from pipeline.evaluation.placement import OnGrid, Placed, common_grid, common_region
from pipeline.evaluation.report import InstanceScores, Scores
from pipeline.evaluation.surface import measure_surface
from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.labels.contingency import PairTable, count_pairs, merge_tables
from pipeline.labels.scores import (
    BinaryScores,
    adapted_rand,
    binary_scores,
    detection_scores,
    variation_of_information,
)

DEFAULT_BLOCK: Vector = (64, 256, 256)
"""Voxels of the common grid per step."""
_PENDING_ROWS = 1 << 20
"""Pair tables of blocks are merged when they hold this many rows."""


def evaluate(
    prediction: Placed,
    truth: Placed,
    *,
    roi: Box | None = None,
    block_zyx: Vector = DEFAULT_BLOCK,
    hd95_cap_nm: float = 1000.0,
    ignore_truth_background: bool = True,
    on_block: Callable[[str, int, int], None] = lambda part, done, total: None,
) -> Scores:
    """Score a segmentation.

    Args:
        prediction: the segmentation; may cover a part of the truth only.
        truth: 0/1 or instances.
        roi: what to compare, in the truth's voxels with its offset; default: where both have voxels.
        block_zyx: voxels of the common grid per step; memory grows with it and with the cap.
        hd95_cap_nm: surface distances are exact up to here; 0 skips HD95.
        ignore_truth_background: leave voxels without a true object out of VOI and adapted Rand.
        on_block: told the part ("overlaps", then "surfaces"), the number of its blocks done and in all.

    Returns:
        All scores, from counts over the whole region.

    Raises:
        UserError: the volumes do not overlap, the region leaves one of them, or the voxel sizes do not fit.
        VolumeFormatError: a volume holds no labels.
    """
    if hd95_cap_nm < 0:
        raise UserError(f"evaluating: the cap of HD95 is {hd95_cap_nm} nm, must be 0 (skip) or more")
    size, repeats = common_grid(prediction, truth)
    pred, true = OnGrid(prediction, repeats[0]), OnGrid(truth, repeats[1])
    region = common_region(pred, true, roi)
    grid = BlockGrid(region, block_zyx)
    table, binary = _count(pred, true, _boxes(grid, "overlaps", on_block))
    surface = None
    if size and hd95_cap_nm:
        surface = measure_surface(pred, true, _boxes(grid, "surfaces", on_block), region, size, hd95_cap_nm)
    true_ids = table.right_sizes()[0]
    absent = None
    if int(true_ids.max(initial=0)) <= 1:
        absent = "the truth holds no ids but 0 and 1: it is a mask, not instances"
    instances = None if absent else _instances(table, ignore_truth_background)
    return Scores(
        roi=region,
        voxel_size_zyx_nm=size,
        binary=binary,
        surface=surface,
        hd95_cap_nm=hd95_cap_nm,
        instances=instances,
        instances_absent=absent,
        num_predicted=int(np.count_nonzero(table.left_sizes()[0])),
        num_true=int(np.count_nonzero(true_ids)),
    )


def _instances(table: PairTable, ignore_truth_background: bool) -> InstanceScores:
    return InstanceScores(
        ap50=detection_scores(table, 50),
        ap75=detection_scores(table, 75),
        variation=variation_of_information(table, ignore_truth_background=ignore_truth_background),
        rand=adapted_rand(table, ignore_truth_background=ignore_truth_background),
        ignored_truth_background=ignore_truth_background,
    )


def _boxes(grid: BlockGrid, part: str, on_block: Callable[[str, int, int], None]) -> Iterator[Box]:
    """Give the blocks in order, and tell when each is done."""
    on_block(part, 0, len(grid))
    for index in range(len(grid)):
        yield grid.box(index)
        on_block(part, index + 1, len(grid))


def _count(prediction: OnGrid, truth: OnGrid, boxes: Iterator[Box]) -> tuple[PairTable, BinaryScores]:
    """Count label pairs and mask overlap over all blocks."""
    pending: list[PairTable] = []
    binary = BinaryScores(0, 0, 0)
    for box in boxes:
        pred, true = prediction.read(box), truth.read(box)
        binary += binary_scores(pred != 0, true != 0)
        pending.append(count_pairs(pred, true))
        if len(pending) > 1 and sum(len(table) for table in pending) > _PENDING_ROWS:
            pending = [merge_tables(pending)]
    return merge_tables(pending), binary
