import math

import pytest
import torch

from sam4em_core.training.config import LossConfig
from sam4em_core.training.losses import masked_bce, masked_soft_dice, segmentation_loss

SHAPE = (2, 3, 1, 5, 7)


def test_bce_of_an_undecided_net_is_the_logarithm_of_two():
    loss = masked_bce(torch.zeros(SHAPE), torch.ones(SHAPE), torch.ones(SHAPE))
    assert float(loss) == pytest.approx(math.log(2))


def test_dice_by_hand():
    logits = torch.tensor([50.0, 50.0, -50.0, -50.0]).view(1, 1, 1, 1, 4)
    truth = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 1, 1, 4)
    loss = masked_soft_dice(logits, truth, torch.ones_like(truth), smoothing_voxels=1.0)
    assert float(loss) == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_dice_counts_over_the_batch_and_not_per_slice():
    truth = torch.zeros(SHAPE)
    truth[0, 0] = 1.0
    logits = (truth - 0.5) * 100
    logits[1, 1, 0, 0, 0] = 50.0
    loss = masked_soft_dice(logits, truth, torch.ones(SHAPE), smoothing_voxels=1.0)
    assert float(loss) < 0.02


def test_an_empty_batch_well_predicted_costs_nothing():
    logits, truth = torch.full(SHAPE, -50.0), torch.zeros(SHAPE)
    assert float(masked_soft_dice(logits, truth, torch.ones(SHAPE), 100.0)) == pytest.approx(0.0, abs=1e-6)


def test_unlabelled_voxels_change_neither_loss_nor_gradient():
    labels = torch.randint(0, 2, SHAPE, dtype=torch.uint8)
    labels[:, 1] = 255
    logits = torch.randn(SHAPE, requires_grad=True)
    loss = segmentation_loss(logits, logits, labels, LossConfig())
    loss.backward()
    assert float(logits.grad[:, 1].abs().max()) == 0.0
    changed = logits.detach().clone()
    changed[:, 1] = 9.0
    assert float(segmentation_loss(changed, changed, labels, LossConfig())) == pytest.approx(float(loss.detach()))


def test_nothing_labelled_is_finite():
    labels = torch.full(SHAPE, 255, dtype=torch.uint8)
    logits = torch.randn(SHAPE)
    assert torch.isfinite(segmentation_loss(logits, logits, labels, LossConfig()))


@pytest.mark.parametrize("coarse_weight", [0.0, 1.0])
def test_both_decoders_are_weighed(coarse_weight):
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    coarse = torch.zeros(SHAPE, requires_grad=True)
    refined = torch.zeros(SHAPE, requires_grad=True)
    segmentation_loss(coarse, refined, labels, LossConfig(coarse_weight=coarse_weight)).backward()
    assert (float(coarse.grad.abs().max()) > 0) == (coarse_weight == 1.0)
    assert (float(refined.grad.abs().max()) > 0) == (coarse_weight == 0.0)
