import numpy as np
import pytest
import torch

from sam4em_core.sdf import signed_distance
from sam4em_core.training.sdf_loss import sdf_loss, slope, steep_voxels

SPACING = (12.0, 6.0, 6.0)
TAU = 60.0


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
    assert sdf_loss(truth, truth, SPACING, TAU, 1.0) < 0.01
    half = sdf_loss(truth / 2, truth, SPACING, TAU, 0.0)
    torch.testing.assert_close(half, (truth / 2).square().mean())
    with_slope = sdf_loss(truth / 2, truth, SPACING, TAU, 2.0)
    assert float(with_slope - half) == pytest.approx(2 * 0.25, rel=0.2)


def test_unknown_voxels_and_their_neighbors_do_not_count():
    truth = ball()
    truth[..., :24] = float("nan")
    wrong = truth.clone().nan_to_num(7.0)
    wrong.requires_grad_()
    loss = sdf_loss(wrong, truth, SPACING, TAU, 1.0)
    loss.backward()
    assert loss < 0.01
    assert (wrong.grad[..., :23] == 0).all()
    nothing = torch.full_like(truth, float("nan"))
    assert sdf_loss(wrong, nothing, SPACING, TAU, 1.0) == 0


def test_two_processes_have_the_loss_of_one():
    truth = torch.cat((ball(), -ball()))
    field = truth * 0.7 + 0.1
    whole = sdf_loss(field, truth, SPACING, TAU, 0.3)
    sums = []

    def remember(values):
        sums.append(values)
        return values

    for part in range(2):
        sdf_loss(field[part : part + 1], truth[part : part + 1], SPACING, TAU, 0.3, remember)
    added = iter([sums[0] + sums[2], sums[1] + sums[3]])
    again = sdf_loss(field[:1], truth[:1], SPACING, TAU, 0.3, lambda _: next(added))
    torch.testing.assert_close(whole, again)
