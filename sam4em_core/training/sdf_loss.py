"""The loss of a U-Net of signed distances: squared error, a slope that is that of a distance, and the mask inside.

    loss = MSE(s, truth) + eikonal_weight * mean over steep voxels of (tau * |grad s| - 1)^2        (Eikonal)
                         + surface_weight * (cross entropy + Dice of sigmoid(distance in voxels))   (surface)

The first two over voxels whose distance is known, the last over all that are labelled: beside an unlabelled slice a
voxel is inside or outside, and nobody knows how deep. The gradient is physical: differences divided by the spacing in
nm. A distance has slope 1 per nm, so s = distance / tau has slope 1 / tau, but not everywhere: where it is cut off it
is flat, and on the medial axis two slopes meet. The truth itself says where: a voxel is steep where its own slope is
nearly 1.
Source: Spatial-SAM (MODEL.md 3.1, 3.2 of the method); the surface is ours: a squared error is mostly about background
that is far from any object, and settles for a field whose zero level misses the small ones (`DECISIONS.md`).
Suffixes: B windows, T slices, C classes, H rows, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.losses import alone, cross_entropy_C, soft_dice_C

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.training.config import LossConfig
    from sam4em_core.training.data import VoxelSize

# Least slope of the truth, times tau, from which a voxel counts as steep. Sampling a sphere of 4 voxels leaves 0.9.
_STEEP = 0.85


def sdf_loss(
    field_BTCHW: torch.Tensor,
    truth_BTCHW: torch.Tensor,
    labels_BTCHW: torch.Tensor,
    spacing_nm: VoxelSize,
    tau_nm: float,
    config: LossConfig,
    pooled: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> torch.Tensor:
    """Weigh the terms into one number.

    Args:
        field_BTCHW: predicted distance / tau, not clipped.
        truth_BTCHW: distance / tau in [-1, 1], NaN where it is unknown.
        labels_BTCHW: truth, uint8: 0, 1, or 255 for unlabelled.
        spacing_nm: voxel size.
        tau_nm: where the truth is cut off.
        config: the weights; 0 leaves slope or surface out.
        pooled: adds the sums of other processes.
    """
    field = field_BTCHW.float()
    known = ~truth_BTCHW.isnan()
    truth = truth_BTCHW.nan_to_num(0.0)
    squared = (field - truth).square() * known
    loss = _mean(squared.sum(), known.sum(), pooled)
    if config.eikonal_weight > 0:
        steep = steep_voxels(truth_BTCHW, spacing_nm, tau_nm)
        wrong = (slope(field, spacing_nm) * tau_nm - 1.0).square() * steep
        loss = loss + config.eikonal_weight * _mean(wrong.sum(), steep.sum(), pooled)
    if config.surface_weight > 0:
        voxels = field * (tau_nm / min(spacing_nm))
        loss = loss + config.surface_weight * _surface(voxels, labels_BTCHW, config, pooled)
    return loss


def _surface(
    logits_BTCHW: torch.Tensor,
    labels_BTCHW: torch.Tensor,
    config: LossConfig,
    pooled: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Compare distances in voxels, as logits, with the mask inside: plain cross entropy and Dice, mean over classes."""
    inside, known = (labels_BTCHW == 1).float(), (labels_BTCHW != UNLABELLED).float()
    plain = [0.0] * logits_BTCHW.shape[2]
    entropy_C = cross_entropy_C(logits_BTCHW, inside, known, plain, pooled)
    dice_C = soft_dice_C(logits_BTCHW, inside, known, config.dice_smoothing_voxels, pooled)
    return (config.bce_weight * entropy_C + config.dice_weight * dice_C).mean()


def _mean(total: torch.Tensor, count: torch.Tensor, pooled: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    over, number = pooled(torch.stack([total, count.to(total)]))
    return over / number.clamp(min=1.0)


def slope(field_BTCHW: torch.Tensor, spacing_nm: VoxelSize) -> torch.Tensor:
    """Length of the gradient per nm, by central differences: two voxels shorter along z, y and x."""
    parts = []
    for axis, spacing in zip((1, 3, 4), spacing_nm, strict=True):
        length = field_BTCHW.shape[axis] - 2
        difference = field_BTCHW.narrow(axis, 2, length) - field_BTCHW.narrow(axis, 0, length)
        parts.append(_inner(difference, {1, 3, 4} - {axis}) / (2 * spacing))
    # The root of zero has no gradient.
    return (parts[0].square() + parts[1].square() + parts[2].square() + 1e-20).sqrt()


def steep_voxels(truth_BTCHW: torch.Tensor, spacing_nm: VoxelSize, tau_nm: float) -> torch.Tensor:
    """Mark the inner voxels whose truth is known, not cut off, and away from the medial axis."""
    around = slope(truth_BTCHW, spacing_nm) * tau_nm
    # A comparison with an unknown neighbor's NaN is false.
    return (around > _STEEP) & (_inner(truth_BTCHW, {1, 3, 4}).abs() < 1.0)


def _inner(values: torch.Tensor, axes: set[int]) -> torch.Tensor:
    for axis in axes:
        values = values.narrow(axis, 1, values.shape[axis] - 2)
    return values
