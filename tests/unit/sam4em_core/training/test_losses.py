import math

import pytest
import torch

from sam4em_core.training.config import LossConfig
from sam4em_core.training.losses import (
    boundary_weights,
    cross_entropy_C,
    masked_bce,
    masked_soft_dice,
    segmentation_loss,
)

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


def test_focal_by_hand():
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 1, 1, 1, 2)
    truth = torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2)
    loss = cross_entropy_C(logits, truth, torch.ones_like(truth), [2.0])
    first = 0.5**2 * math.log(2.0)
    second = 0.75**2 * math.log(4.0)
    assert float(loss[0]) == pytest.approx((first + second) / 2)


def test_focal_has_a_finite_gradient_where_all_is_right():
    logits = torch.tensor([90.0, -90.0]).view(1, 1, 1, 1, 2).requires_grad_()
    truth = torch.tensor([1.0, 0.0]).view(1, 1, 1, 1, 2)
    cross_entropy_C(logits, truth, torch.ones_like(truth), [0.5]).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_every_class_has_its_own_mean_and_weight():
    labels = torch.zeros((1, 1, 2, 1, 4), dtype=torch.uint8)
    labels[0, 0, 1, 0, 1:] = 255
    logits = torch.zeros((1, 1, 2, 1, 4))
    logits[0, 0, 1] = math.log(3.0)
    settings = {"dice_weight": 0.0, "bce_weight": 1.0, "per_class": {"b": {"weight": 3.0}}}
    loss = segmentation_loss(logits, logits, labels, LossConfig.model_validate(settings), classes=("a", "b"))
    assert float(loss) == pytest.approx(0.25 * math.log(2.0) + 0.75 * math.log(4.0))


def test_one_class_can_be_focal_beside_another():
    labels = torch.zeros((1, 1, 2, 1, 4), dtype=torch.uint8)
    logits = torch.zeros((1, 1, 2, 1, 4))
    settings = {"dice_weight": 0.0, "bce_weight": 1.0, "per_class": {"b": {"cross_entropy": "focal"}}}
    loss = segmentation_loss(logits, logits, labels, LossConfig.model_validate(settings), classes=("a", "b"))
    assert float(loss) == pytest.approx(0.5 * math.log(2.0) + 0.5 * 0.25 * math.log(2.0))


def test_boundary_weights_by_hand():
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 255], dtype=torch.uint8).view(1, 1, 1, 1, 7)
    weights = boundary_weights(labels, 2.0, 1.0).flatten()
    near, far = 1 + 2 * math.exp(-0.5), 1 + 2 * math.exp(-2.0)
    assert weights.tolist() == pytest.approx([far, near, 3.0, 3.0, near, far, 1 + 2 * math.exp(-4.5)])


def test_a_slice_without_a_border_weighs_one():
    labels = torch.zeros(SHAPE, dtype=torch.uint8)
    labels[0, 0, 0, 2:] = 255
    labels[1] = 1
    assert torch.equal(boundary_weights(labels, 5.0, 2.0), torch.ones(SHAPE))


def test_the_border_costs_more_with_the_boundary_option():
    labels = torch.zeros((1, 1, 1, 1, 31), dtype=torch.uint8)
    labels[..., 15:] = 1
    logits = (labels.float() - 0.5) * 20
    logits[..., 15] = -10.0
    plain, aware = (
        float(segmentation_loss(logits, logits, labels, LossConfig(dice_weight=0.0, boundary_weight=weight)))
        for weight in (0.0, 4.0)
    )
    assert aware > 1.5 * plain


def test_shares_of_a_batch_have_the_loss_and_the_gradient_of_the_whole():
    """What `distributed.pooled` does, without processes: the other share's sums are added as constants."""
    torch.manual_seed(0)
    labels = torch.randint(0, 2, SHAPE, dtype=torch.uint8)
    labels[0, 1] = 255
    config = LossConfig(cross_entropy="focal", boundary_weight=1.0)
    whole = torch.randn(SHAPE, requires_grad=True)
    expected = segmentation_loss(whole, whole, labels, config)
    expected.backward()
    sums = []
    for part in (0, 1):
        logits = whole.detach()[part : part + 1]
        collected = []
        segmentation_loss(
            logits, logits, labels[part : part + 1], config, pooled=lambda s, c=collected: c.append(s) or s
        )
        sums.append(collected)
    for part in (0, 1):
        logits = whole.detach()[part : part + 1].clone().requires_grad_()
        others = iter(sums[1 - part])
        loss = segmentation_loss(
            logits, logits, labels[part : part + 1], config, pooled=lambda s, others=others: s + next(others)
        )
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-6)
        torch.testing.assert_close(logits.grad, whole.grad[part : part + 1])


def test_a_window_of_half_the_weight_pulls_half_as_hard():
    labels = torch.randint(0, 2, SHAPE, dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    logits = torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
    plain = float(segmentation_loss(logits, logits, labels, LossConfig()))
    ones, halves = torch.ones(2), torch.full((2,), 0.5)
    assert float(segmentation_loss(logits, logits, labels, LossConfig(), share_B=ones)) == pytest.approx(plain)
    config = LossConfig(dice_weight=0.0)
    plain = float(segmentation_loss(logits, logits, labels, config))
    assert float(segmentation_loss(logits, logits, labels, config, share_B=halves)) == pytest.approx(plain / 2)
    mixed = logits.clone().requires_grad_(True)
    segmentation_loss(mixed, mixed, labels, config, share_B=torch.tensor([1.0, 0.5])).backward()
    whole = logits.clone().requires_grad_(True)
    segmentation_loss(whole, whole, labels, config).backward()
    ratio = mixed.grad.abs().sum((1, 2, 3, 4)) / whole.grad.abs().sum((1, 2, 3, 4))
    assert float(ratio[0] / ratio[1]) == pytest.approx(2.0, rel=1e-4)
