import numpy as np
import torch

from sam4em_core.training.faults import add_charging_band, apply_faults, blur, hide_slices, shift_slice


def test_no_fault_without_probability():
    image, labels = torch.rand(3, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    changed, _ = apply_faults(image, labels, 0.0, np.random.default_rng(0))
    assert torch.equal(changed, image)


def test_faults_leave_the_given_window_alone():
    image, labels = torch.rand(5, 32, 32), torch.randint(0, 2, (1, 5, 32, 32), dtype=torch.uint8)
    before = image.clone(), labels.clone()
    changed, _ = apply_faults(image, labels, 1.0, np.random.default_rng(0))
    assert torch.equal(image, before[0])
    assert torch.equal(labels, before[1])
    assert not torch.equal(changed, image)


def test_a_shifted_slice_takes_its_truth_along():
    image = torch.rand(3, 31, 37)
    labels = (image > 0.5).to(torch.uint8)[None].clone()
    shift_slice(image, labels, 1, np.random.default_rng(3))
    assert torch.equal((image > 0.5).to(torch.uint8), labels[0])


def test_only_one_slice_shifts():
    image, labels = torch.rand(3, 31, 37), torch.zeros(1, 3, 31, 37, dtype=torch.uint8)
    before = image.clone()
    shift_slice(image, labels, 1, np.random.default_rng(3))
    assert torch.equal(image[[0, 2]], before[[0, 2]])
    assert not torch.equal(image[1], before[1])


def test_blur_keeps_a_constant_and_spreads_a_point():
    flat = torch.full((1, 23, 29), 0.4)
    torch.testing.assert_close(blur(flat, 1.7), flat)
    point = torch.zeros(1, 23, 29)
    point[0, 11, 13] = 1.0
    spread = blur(point, 1.0)
    assert 0.1 < float(spread[0, 11, 13]) < 0.2
    torch.testing.assert_close(float(spread.sum()), 1.0)


def test_a_band_is_level_and_in_one_slice():
    image = torch.full((3, 32, 17), 0.5)
    add_charging_band(image, 2, np.random.default_rng(2))
    assert bool((image[:2] == 0.5).all())
    assert bool((image[2] == image[2, :, :1]).all())
    assert float((image[2] - 0.5).abs().max()) > 0.01


def test_hidden_slices_show_one_grey_value_and_the_first_is_never_one_of_them():
    image = torch.rand(400, 3, 5)
    before = image.clone()
    hidden = (hide_slices(image, 0.3, np.random.default_rng(0)) != image).flatten(1).any(1)
    assert torch.equal(image, before)
    assert 90 < int(hidden.sum()) < 150
    every = hide_slices(image, 1.0, np.random.default_rng(0))
    assert torch.equal(every[0], image[0])
    assert set(every[1:].flatten().tolist()) == {0.0, 0.5, 1.0}
    assert all(len(part.unique()) == 1 for part in every[1:])


def test_nothing_is_hidden_and_nothing_drawn_without_a_chance():
    rng = np.random.default_rng(0)
    image = torch.rand(3, 5, 7)
    assert hide_slices(image, 0.0, rng) is image
    assert rng.random() == np.random.default_rng(0).random()
