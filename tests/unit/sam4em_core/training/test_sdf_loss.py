import numpy as np
import pytest
import torch

from sam4em_core.sdf import signed_distance
from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.sdf_loss import sdf_loss, slope, steep_voxels
from sam4em_core.training.sections import LossConfig

SPACING = (12.0, 6.0, 6.0)
TAU = 60.0


def labels_of(truth):
    return torch.where(truth.isnan(), UNLABELLED, (truth > 0).to(torch.uint8)).to(torch.uint8)


def weights(eikonal=0.0, surface=0.0):
    return LossConfig(eikonal_weight=eikonal, surface_weight=surface)


def ball():
    z, y, x = np.ogrid[:24, :48, :48]
    inside = ((z - 12) * 12.0) ** 2 + ((y - 24) * 6.0) ** 2 + ((x - 24) * 6.0) ** 2 < 90**2
    return torch.from_numpy(signed_distance(inside, SPACING, TAU))[None, :, None]


def test_a_plane_has_the_slope_of_its_distance_whatever_the_spacing():
    for axis, spacing in ((1, 12.0), (3, 6.0), (4, 6.0)):
        shape = [1, 6, 1, 8, 8]
        ramp = torch.arange(shape[axis]) * spacing / TAU
        view = [1] * 5
        view[axis] = -1
        found = slope(ramp.view(view).expand(shape), SPACING) * TAU
        assert found.shape == (1, 4, 1, 6, 6)
        torch.testing.assert_close(found, torch.ones_like(found))


def test_the_slope_is_asked_for_beside_the_surface_alone():
    truth = ball()
    steep = steep_voxels(truth, SPACING, TAU)
    inner = truth[:, 1:-1, :, 1:-1, 1:-1]
    assert steep.sum() > 1000
    assert not steep[inner.abs() == 1].any()
    assert not steep[0, 11, 0, 23, 23]
    near = inner.abs() < 0.5
    assert steep[near].float().mean() > 0.9


def test_the_truth_itself_costs_almost_nothing_and_a_flat_field_the_slope():
    truth = ball()
    assert sdf_loss(truth, truth, labels_of(truth), SPACING, TAU, weights(1.0)) < 0.01
    half = sdf_loss(truth / 2, truth, labels_of(truth), SPACING, TAU, weights())
    torch.testing.assert_close(half, (truth / 2).square().mean())
    with_slope = sdf_loss(truth / 2, truth, labels_of(truth), SPACING, TAU, weights(2.0))
    assert float(with_slope - half) == pytest.approx(2 * 0.25, rel=0.2)


def test_unknown_voxels_and_their_neighbors_do_not_count():
    truth = ball()
    truth[..., :24] = float("nan")
    wrong = truth.clone().nan_to_num(7.0)
    wrong.requires_grad_()
    loss = sdf_loss(wrong, truth, labels_of(truth), SPACING, TAU, weights(1.0))
    loss.backward()
    assert loss < 0.01
    assert (wrong.grad[..., :23] == 0).all()
    nothing = torch.full_like(truth, float("nan"))
    assert sdf_loss(wrong, nothing, labels_of(nothing), SPACING, TAU, weights(1.0)) == 0


def test_two_processes_have_the_loss_of_one():
    truth = torch.cat((ball(), -ball()))
    field = truth * 0.7 + 0.1
    config = weights(0.3, 0.5)
    whole = sdf_loss(field, truth, labels_of(truth), SPACING, TAU, config)
    sums = []

    def remember(values):
        sums.append(values)
        return values

    for part in range(2):
        one = slice(part, part + 1)
        sdf_loss(field[one], truth[one], labels_of(truth)[one], SPACING, TAU, config, remember)
    half = len(sums) // 2
    added = iter([one + other for one, other in zip(sums[:half], sums[half:], strict=True)])
    again = sdf_loss(field[:1], truth[:1], labels_of(truth)[:1], SPACING, TAU, config, lambda _: next(added))
    torch.testing.assert_close(whole, again)


def test_the_surface_sees_a_missed_object_that_hardly_counts_in_the_squared_error():
    truth = ball()
    missed = truth.clamp(max=-0.05)
    squared = sdf_loss(missed, truth, labels_of(truth), SPACING, TAU, weights())
    surface = sdf_loss(missed, truth, labels_of(truth), SPACING, TAU, weights(surface=1.0)) - squared
    right = sdf_loss(truth, truth, labels_of(truth), SPACING, TAU, weights(surface=1.0))
    assert squared < 0.05
    assert surface > 10 * squared
    assert right < 0.1


def test_unknown_voxels_have_no_surface():
    truth = ball()
    truth[..., :24] = float("nan")
    wrong = (-truth).nan_to_num(7.0).requires_grad_()
    sdf_loss(wrong, truth, labels_of(truth), SPACING, TAU, weights(surface=1.0)).backward()
    assert (wrong.grad[..., :24] == 0).all()
    assert (wrong.grad[..., 24:] != 0).any()


def test_the_surface_is_learnt_where_only_the_sign_is_known():
    truth = ball()
    nowhere = torch.full_like(truth, float("nan"))
    wrong = (-truth).requires_grad_()
    assert sdf_loss(wrong, nowhere, labels_of(truth), SPACING, TAU, weights(surface=1.0)) > 1.0
    assert sdf_loss(wrong, nowhere, labels_of(truth), SPACING, TAU, weights(eikonal=1.0)) == 0
