"""Losses per class: cross entropy (plain or focal) and soft Dice, over labelled voxels only.

Every term is a fraction of two sums over the batch. `pooled` adds the sums of the other processes to them, so that
several processes have the loss, and together the gradient, that one would have on all their windows.

Suffixes: B windows, T slices, C classes, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from sam4em_core.training.data import UNLABELLED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sam4em_core.training.config import LossConfig

_PER_CLASS = (0, 1, 3, 4)
_BORDER_REACH_SIGMAS = 3.0


def alone(sums: torch.Tensor) -> torch.Tensor:
    """Give sums back unchanged: there is one process."""
    return sums


def cross_entropy_C(
    logits_BTCHW: torch.Tensor,
    target_BTCHW: torch.Tensor,
    weight_BTCHW: torch.Tensor,
    gammas: Sequence[float],
    pooled: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> torch.Tensor:
    """Average cross entropy per class over weighted voxels, shape (classes,); 0 where nothing is labelled.

    Args:
        logits_BTCHW: logits.
        target_BTCHW: truth, 0 or 1, floating.
        weight_BTCHW: weight of each voxel; 0 where the truth is unknown.
        gammas: focal exponent per class: a voxel counts (1 - probability of its truth) ** gamma; 0 is plain.
        pooled: adds the sums of other processes.

    Source: Lin et al. 2017, Focal Loss, eq. 4.
    """
    loss = functional.binary_cross_entropy_with_logits(logits_BTCHW, target_BTCHW, reduction="none")
    if any(gammas):
        gamma = torch.tensor(gammas, dtype=loss.dtype, device=loss.device).view(1, 1, -1, 1, 1)
        # exp(-loss) is the probability of the truth; its floor keeps the power's gradient finite.
        loss = loss * (-torch.expm1(-loss)).clamp(min=1e-6) ** gamma
    over, total = pooled(torch.stack([(loss * weight_BTCHW).sum(_PER_CLASS), weight_BTCHW.sum(_PER_CLASS)]))
    return over / total.clamp(min=1.0)


def masked_bce(logits_BTCHW: torch.Tensor, target_BTCHW: torch.Tensor, labelled_BTCHW: torch.Tensor) -> torch.Tensor:
    """Average plain cross entropy over labelled voxels, then over classes; 0 where nothing is labelled."""
    plain = [0.0] * logits_BTCHW.shape[2]
    return cross_entropy_C(logits_BTCHW, target_BTCHW, labelled_BTCHW, plain).mean()


def soft_dice_C(
    logits_BTCHW: torch.Tensor,
    target_BTCHW: torch.Tensor,
    labelled_BTCHW: torch.Tensor,
    smoothing_voxels: float,
    pooled: Callable[[torch.Tensor], torch.Tensor] = alone,
) -> torch.Tensor:
    """Give 1 - soft Dice per class over the whole batch, shape (classes,).

    Counting over the batch and not per slice keeps slices without the class from scoring 0 for one
    false voxel; a batch without the class is held by the smoothing.

    Args:
        logits_BTCHW: logits.
        target_BTCHW: truth, 0 or 1, floating.
        labelled_BTCHW: 1 where the truth is known, else 0, floating.
        smoothing_voxels: added to numerator and denominator.
        pooled: adds the sums of other processes.
    """
    probability = torch.sigmoid(logits_BTCHW) * labelled_BTCHW
    truth = target_BTCHW * labelled_BTCHW
    shared = (probability * truth).sum(_PER_CLASS)
    both = probability.sum(_PER_CLASS) + truth.sum(_PER_CLASS)
    shared_C, both_C = pooled(torch.stack([shared, both]))
    return 1.0 - (2.0 * shared_C + smoothing_voxels) / (both_C + smoothing_voxels)


def masked_soft_dice(
    logits_BTCHW: torch.Tensor, target_BTCHW: torch.Tensor, labelled_BTCHW: torch.Tensor, smoothing_voxels: float
) -> torch.Tensor:
    """Average `soft_dice_C` over classes."""
    return soft_dice_C(logits_BTCHW, target_BTCHW, labelled_BTCHW, smoothing_voxels).mean()


def boundary_weights(labels_BTCHW: torch.Tensor, weight: float, sigma_voxels: float) -> torch.Tensor:
    """Weigh voxels by their distance from the truth's border within the slice.

    A border voxel has a labelled neighbour (of four) of the other kind and weighs 1 + `weight`; at distance d (in
    steps, diagonal ones too) it is 1 + weight * exp(-d^2 / (2 sigma^2)), and 1 beyond three sigma. Slices without a
    border weigh 1 throughout.

    Args:
        labels_BTCHW: uint8 truth: 0, 1, or 255 where it is unknown.
        weight: what the border adds.
        sigma_voxels: how fast that falls.
    """
    labels = labels_BTCHW.flatten(0, 2)[:, None]
    near = _border(labels).float()
    weights = 1.0 + weight * near
    for distance in range(1, math.floor(_BORDER_REACH_SIGMAS * sigma_voxels) + 1):
        near = functional.max_pool2d(near, 3, stride=1, padding=1)
        fall = math.exp(-0.5 * (distance / sigma_voxels) ** 2)
        weights = torch.maximum(weights, 1.0 + weight * fall * near)
    return weights.view(labels_BTCHW.shape)


def _border(labels_N1HW: torch.Tensor) -> torch.Tensor:
    """Mark labelled voxels with a labelled neighbour of the other kind to the left, right, above or below."""
    border = torch.zeros_like(labels_N1HW, dtype=torch.bool)
    for axis in (-2, -1):
        length = labels_N1HW.shape[axis] - 1
        one, other = labels_N1HW.narrow(axis, 0, length), labels_N1HW.narrow(axis, 1, length)
        differs = (one != other) & (one != UNLABELLED) & (other != UNLABELLED)
        border.narrow(axis, 0, length).logical_or_(differs)
        border.narrow(axis, 1, length).logical_or_(differs)
    return border


def segmentation_loss(
    coarse_BTCHW: torch.Tensor,
    refined_BTCHW: torch.Tensor,
    labels_BTCHW: torch.Tensor,
    config: LossConfig,
    *,
    classes: Sequence[str] = (),
    pooled: Callable[[torch.Tensor], torch.Tensor] = alone,
    share_B: torch.Tensor | None = None,
) -> torch.Tensor:
    """Weigh cross entropy and Dice of both decoders and all classes into one number.

    Args:
        coarse_BTCHW: logits of the coarse decoder at full resolution.
        refined_BTCHW: logits of the refined decoder at full resolution.
        labels_BTCHW: uint8 truth: 0, 1, or 255 where it is unknown.
        config: the weights.
        classes: names of the channels, for `config.per_class`.
        pooled: adds the sums of other processes.
        share_B: what each window weighs; by default 1.
    """
    labelled = (labels_BTCHW != UNLABELLED).float()
    if share_B is not None:
        labelled = labelled * share_B.view(-1, 1, 1, 1, 1)
    target = (labels_BTCHW == 1).float()
    weight = labelled
    if config.boundary_weight > 0:
        weight = labelled * boundary_weights(labels_BTCHW, config.boundary_weight, config.boundary_sigma_voxels)
    gammas, shares = _class_settings(config, classes, labels_BTCHW.shape[2])
    share_C = torch.tensor(shares, device=labels_BTCHW.device)

    def one_decoder(logits_BTCHW: torch.Tensor) -> torch.Tensor:
        logits = logits_BTCHW.float()
        entropy_C = cross_entropy_C(logits, target, weight, gammas, pooled)
        dice_C = soft_dice_C(logits, target, labelled, config.dice_smoothing_voxels, pooled)
        return (share_C * (config.bce_weight * entropy_C + config.dice_weight * dice_C)).sum()

    coarse_weight = config.coarse_weight
    loss = coarse_weight * one_decoder(coarse_BTCHW) + (1.0 - coarse_weight) * one_decoder(refined_BTCHW)
    return loss if share_B is None else loss * _mean_share(share_B, pooled)


def _mean_share(share_B: torch.Tensor, pooled: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Give the mean share: fractions of sums say how windows compare, not how much all of them weigh."""
    total, count = pooled(torch.stack([share_B.sum(), share_B.new_tensor(float(len(share_B)))]))
    return total / count


def _class_settings(config: LossConfig, classes: Sequence[str], num_classes: int) -> tuple[list[float], list[float]]:
    """Give each channel's focal exponent, and its share among the classes (they sum to 1)."""
    own = [config.per_class.get(name) for name in classes] or [None] * num_classes
    kinds = [(item and item.cross_entropy) or config.cross_entropy for item in own]
    weights = [item.weight if item else 1.0 for item in own]
    gammas = [config.focal_gamma if kind == "focal" else 0.0 for kind in kinds]
    return gammas, [weight / sum(weights) for weight in weights]
