"""Losses: binary cross entropy and soft Dice per class, over labelled voxels only.

Suffixes: B windows, T slices, C classes, H rows, W columns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from sam4em_core.training.data import UNLABELLED

if TYPE_CHECKING:
    from sam4em_core.training.config import LossConfig


def masked_bce(logits_BTCHW: torch.Tensor, target_BTCHW: torch.Tensor, labelled_BTCHW: torch.Tensor) -> torch.Tensor:
    """Average binary cross entropy over labelled voxels; 0 where nothing is labelled.

    Args:
        logits_BTCHW: logits.
        target_BTCHW: truth, 0 or 1, floating.
        labelled_BTCHW: 1 where the truth is known, else 0, floating.
    """
    loss = functional.binary_cross_entropy_with_logits(logits_BTCHW, target_BTCHW, reduction="none")
    return (loss * labelled_BTCHW).sum() / labelled_BTCHW.sum().clamp(min=1.0)


def masked_soft_dice(
    logits_BTCHW: torch.Tensor,
    target_BTCHW: torch.Tensor,
    labelled_BTCHW: torch.Tensor,
    smoothing_voxels: float,
) -> torch.Tensor:
    """Give 1 - soft Dice per class over the whole batch, averaged over classes.

    Counting over the batch and not per slice keeps slices without the class from scoring 0 for one
    false voxel; a batch without the class is held by the smoothing.

    Args:
        logits_BTCHW: logits.
        target_BTCHW: truth, 0 or 1, floating.
        labelled_BTCHW: 1 where the truth is known, else 0, floating.
        smoothing_voxels: added to numerator and denominator.
    """
    over = (0, 1, 3, 4)
    probability = torch.sigmoid(logits_BTCHW) * labelled_BTCHW
    truth = target_BTCHW * labelled_BTCHW
    shared_C = (probability * truth).sum(over)
    both_C = probability.sum(over) + truth.sum(over)
    return (1.0 - (2.0 * shared_C + smoothing_voxels) / (both_C + smoothing_voxels)).mean()


def segmentation_loss(
    coarse_BTCHW: torch.Tensor, refined_BTCHW: torch.Tensor, labels_BTCHW: torch.Tensor, config: LossConfig
) -> torch.Tensor:
    """Weigh cross entropy and Dice of both decoders into one number.

    Args:
        coarse_BTCHW: logits of the coarse decoder at full resolution.
        refined_BTCHW: logits of the refined decoder at full resolution.
        labels_BTCHW: uint8 truth: 0, 1, or 255 where it is unknown.
        config: the weights.
    """
    labelled = (labels_BTCHW != UNLABELLED).float()
    target = (labels_BTCHW == 1).float()

    def one_decoder(logits_BTCHW: torch.Tensor) -> torch.Tensor:
        logits = logits_BTCHW.float()
        bce = masked_bce(logits, target, labelled)
        dice = masked_soft_dice(logits, target, labelled, config.dice_smoothing_voxels)
        return config.bce_weight * bce + config.dice_weight * dice

    coarse_weight = config.coarse_weight
    return coarse_weight * one_decoder(coarse_BTCHW) + (1.0 - coarse_weight) * one_decoder(refined_BTCHW)
