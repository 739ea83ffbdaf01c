import numpy as np
import pytest
import torch

from sam4em_core.training.augment import augment_window, margin_voxels
from sam4em_core.training.config import AugmentConfig
from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.sampler import Window

OFF = {
    "reverse_probability": 0.0,
    "contrast_fraction": 0.0,
    "brightness": 0.0,
    "gamma_fraction": 0.0,
    "noise_sigma": 0.0,
    "blur_probability": 0.0,
    "fault_probability": 0.0,
}


def window(crop, margin, slices=3):
    side = crop + 2 * margin
    rng = np.random.default_rng(0)
    plane = rng.random((side, side), dtype=np.float32)
    labels = (plane > 0.5).astype(np.uint8)
    shape = (slices, side, side)
    return Window("here", np.broadcast_to(plane, shape).copy(), np.broadcast_to(labels, shape)[None].copy())


def test_everything_off_gives_the_crop():
    config = AugmentConfig(geometric=False, **OFF)
    given = window(32, margin_voxels(config, 32))
    image, labels = augment_window(given, config, np.random.default_rng(0), 32, UNLABELLED)
    np.testing.assert_allclose(image.numpy(), given.image_zyx)
    np.testing.assert_array_equal(labels.numpy()[:, 0], given.labels_czyx[0])


def test_every_slice_gets_the_same_geometry():
    config = AugmentConfig(**OFF)
    image, labels = augment_window(
        window(64, margin_voxels(config, 64)), config, np.random.default_rng(1), 64, UNLABELLED
    )
    assert image.shape == (3, 64, 64)
    assert labels.shape == (3, 1, 64, 64)
    assert bool((image == image[:1]).all())
    assert bool((labels == labels[:1]).all())


def test_truth_moves_with_the_image():
    config = AugmentConfig(**OFF)
    margin = margin_voxels(config, 64)
    given = window(64, margin)
    smooth = np.zeros_like(given.image_zyx)
    smooth[:, 40:80, 50:70] = 1.0
    given = Window("here", smooth, smooth.astype(np.uint8)[None])
    for seed in range(5):
        image, labels = augment_window(given, config, np.random.default_rng(seed), 64, UNLABELLED)
        agreement = ((image > 0.5) == (labels[:, 0] == 1)).float().mean()
        assert float(agreement) > 0.99


def test_the_margin_keeps_an_unscaled_turn_inside():
    config = AugmentConfig(scale_fraction=0.0, elastic_voxels=0.0, **OFF)
    given = window(64, margin_voxels(config, 64))
    for seed in range(10):
        _, labels = augment_window(given, config, np.random.default_rng(seed), 64, UNLABELLED)
        assert not bool((labels == UNLABELLED).any())


def test_reversal_turns_image_and_truth():
    config = AugmentConfig(geometric=False, **{**OFF, "reverse_probability": 1.0})
    given = window(32, 0)
    given.image_zyx[0] = 0.0
    given.labels_czyx[0, 0] = 1
    image, labels = augment_window(given, config, np.random.default_rng(0), 32, UNLABELLED)
    assert float(image[-1].max()) == 0.0
    assert bool((labels[-1] == 1).all())


@pytest.mark.parametrize("seed", range(5))
def test_grey_values_stay_in_range(seed):
    config = AugmentConfig(fault_probability=1.0, noise_sigma=0.5, brightness=0.5)
    image, _ = augment_window(
        window(32, margin_voxels(config, 32)), config, np.random.default_rng(seed), 32, UNLABELLED
    )
    assert float(image.min()) >= 0.0
    assert float(image.max()) <= 1.0
    assert bool(torch.isfinite(image).all())


def test_the_same_stream_gives_the_same_window():
    config = AugmentConfig(fault_probability=0.5)
    given = window(32, margin_voxels(config, 32))
    first, second = (augment_window(given, config, np.random.default_rng(4), 32, UNLABELLED)[0] for _ in range(2))
    assert torch.equal(first, second)
