from dataclasses import replace

import numpy as np
import pytest

from sam4em_core.training.config import SamplingConfig
from sam4em_core.training.data import UNLABELLED, WorkingVolume
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.sampler import WindowSampler, draw_shares


def volume(labels_zyx, name="v"):
    image = np.arange(labels_zyx.size, dtype=np.int64).reshape(labels_zyx.shape) % 251
    return WorkingVolume(name, image.astype(np.uint8), labels_zyx[None], 7)


@pytest.fixture
def speck():
    labels = np.zeros((11, 101, 103), np.uint8)
    labels[3, 47, 5] = 1
    return labels


def test_a_focused_window_holds_the_class(speck):
    sampler = WindowSampler([volume(speck)], SamplingConfig(foreground_fraction=1.0))
    for seed in range(20):
        window = sampler.draw(np.random.default_rng(seed), 3, 32, 0)
        assert window.image_zyx.shape == (3, 32, 32)
        assert (window.labels_czyx == 1).any()


def test_empty_windows_are_rare(speck):
    speck[:, :50] = 1
    config = SamplingConfig(foreground_fraction=0.0, keep_background_probability=0.0)
    sampler = WindowSampler([volume(speck)], config)
    windows = [sampler.draw(np.random.default_rng(seed), 2, 32, 0) for seed in range(30)]
    assert all((window.labels_czyx == 1).any() for window in windows)


def test_margin_outside_the_volume_is_mirrored_and_unlabelled(speck):
    sampler = WindowSampler([volume(speck)], SamplingConfig(foreground_fraction=1.0))
    window = sampler.draw(np.random.default_rng(0), 11, 96, 17)
    assert window.image_zyx.shape == (11, 130, 130)
    assert (window.labels_czyx[0, :, 0] == UNLABELLED).all()
    assert window.image_zyx[0, 0].max() > 0


def test_a_thin_volume_is_mirrored_in_z(speck):
    sampler = WindowSampler([volume(speck[:2])], SamplingConfig())
    window = sampler.draw(np.random.default_rng(0), 5, 32, 0)
    assert window.image_zyx.shape == (5, 32, 32)
    assert (window.labels_czyx[0, 2:] == UNLABELLED).all()


def test_the_origin_names_volume_and_voxel(speck):
    window = WindowSampler([volume(speck, "brain")], SamplingConfig()).draw(np.random.default_rng(0), 11, 96, 0)
    assert window.origin.startswith("brain, slice 7, y ")


def test_the_same_stream_gives_the_same_window(speck):
    sampler = WindowSampler([volume(speck)], SamplingConfig())
    first, second = (sampler.draw(np.random.default_rng(5), 3, 32, 4) for _ in range(2))
    np.testing.assert_array_equal(first.image_zyx, second.image_zyx)


def test_refuses_nothing():
    with pytest.raises(TrainingSetupError, match="at least one"):
        WindowSampler([], SamplingConfig())


def test_windows_without_a_labelled_voxel_are_drawn_again():
    labels = np.full((40, 50, 51), UNLABELLED, np.uint8)
    labels[20] = 0
    labels[20, 10:30, 10:30] = 1
    config = SamplingConfig(foreground_fraction=0.0)
    sampler = WindowSampler([volume(labels)], config)
    windows = [sampler.draw(np.random.default_rng(seed), 4, 32, 0) for seed in range(30)]
    labelled = [bool((window.labels_czyx != UNLABELLED).any()) for window in windows]
    assert np.mean(labelled) > 0.8


def test_sparse_labels_do_not_make_a_window_look_empty():
    labels = np.full((10, 32, 32), UNLABELLED, np.uint8)
    labels[4] = 1
    config = SamplingConfig(foreground_fraction=0.0, keep_background_probability=0.0, background_below_fraction=0.9)
    window = WindowSampler([volume(labels)], config).draw(np.random.default_rng(0), 10, 32, 0)
    assert (window.labels_czyx == 1).any()


def ramp_volume():
    """Grey values that tell the voxel: 20 z + y for few z, plus the parity of x."""
    z, y, x = np.indices((3, 40, 41))
    image = (80 * z + y + x % 2).astype(np.uint8)
    return WorkingVolume("v", image, ((y == 7) | (x == 9)).astype(np.uint8)[None], 0)


def test_other_axes_show_the_same_tissue_from_the_side():
    config = SamplingConfig(other_axes_fraction=1.0, foreground_fraction=0.0)
    sampler, volume = WindowSampler([ramp_volume()], config), ramp_volume()
    views = {"y": volume.image_zyx.transpose(1, 0, 2), "x": volume.image_zyx.transpose(2, 1, 0)}
    seen = set()
    for seed in range(12):
        window = sampler.draw(np.random.default_rng(seed), 5, 32, 0)
        place, along = window.origin.split(", along ")
        z, y, x = (int(part.split()[-1]) for part in place.split(", ")[1:])
        a, b, c = (y, z, x) if along == "y" else (x, y, z)
        whole = np.pad(views[along].astype(np.float32) / 255, ((0, 0), (0, 32), (0, 32)), mode="symmetric")
        np.testing.assert_array_equal(window.image_zyx, whole[a : a + 5, b : b + 32, c : c + 32])
        seen.add(along)
    assert seen == {"y", "x"}


def test_truth_is_mirrored_with_the_image_where_a_side_view_leaves_the_volume():
    config = SamplingConfig(other_axes_fraction=1.0)
    window = WindowSampler([ramp_volume()], config).draw(np.random.default_rng(0), 5, 32, 4)
    assert window.image_zyx.shape == (5, 40, 40)
    assert (window.labels_czyx != UNLABELLED).all()


def test_a_volume_may_ask_for_its_share(speck):
    small, large = volume(speck[:3], "small"), volume(speck, "large")
    assert draw_shares([replace(small, draw_share=0.25), large, large]).tolist() == [0.25, 0.375, 0.375]
    assert draw_shares([replace(small, draw_share=1.0)]).tolist() == [1.0]
    with pytest.raises(TrainingSetupError, match="nothing is left for the others"):
        draw_shares([replace(small, draw_share=1.0), large])
    with pytest.raises(TrainingSetupError, match="it must be 1"):
        draw_shares([replace(small, draw_share=0.5)])


def test_a_window_knows_what_it_weighs(speck):
    sampler = WindowSampler([replace(volume(speck), loss_share=0.5)], SamplingConfig())
    assert sampler.draw(np.random.default_rng(0), 2, 32, 0).loss_share == 0.5
