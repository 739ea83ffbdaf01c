from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from sam4em_core.propagation import Propagation
from sam4em_core.training import round_zero
from sam4em_core.training.data import UNLABELLED, TrainingVolume
from sam4em_core.training.round_zero import carry, class_by_class, dice_against_distance, expected_dice
from sam4em_core.training.subjects import Subject


def subject(depth, labelled):
    truth = np.full((1, depth, 4, 4), UNLABELLED, np.uint8)
    truth[:, list(labelled)] = 0
    return Subject("v", np.zeros((depth, 4, 4), np.uint8), truth, (8.0, 8.0, 8.0), 0)


def test_the_curve_is_weighed_by_the_distances_of_the_unlabelled_slices():
    curve = {1: 0.9, 2: 0.6}
    # Distances 1 and 1 between 0 and 3; beyond the curve its last value counts.
    assert expected_dice(curve, [subject(4, (0, 3))]) == pytest.approx(0.9)
    assert expected_dice(curve, [subject(5, (0,))]) == pytest.approx((0.9 + 0.6 * 3) / 4)


def test_between_known_distances_the_curve_is_a_line():
    # Distances 1, 2 and 1 between 0 and 4, and 1 and 2 above it.
    assert expected_dice({1: 0.9, 3: 0.5}, [subject(7, (0, 4))]) == pytest.approx((3 * 0.9 + 2 * 0.7) / 5)


def test_labelled_slices_show_how_far_beyond_the_choose_slices_a_mask_can_be_carried(monkeypatch):
    def as_far_as_three_slices(_checkpoint, given, _device):
        (first,) = given.labelled
        near = np.abs(np.arange(len(given.image_zyx)) - first) <= 3
        mask = near[:, None, None] & (given.truth_czyx[:, [first]] == 1)
        return SimpleNamespace(fused=lambda: mask.astype(np.uint8) * np.uint8(255))

    monkeypatch.setattr(round_zero, "carry", as_far_as_three_slices)
    part = SimpleNamespace(voxel_size_zyx_nm=(8.0, 8.0, 8.0), device="cpu")
    config = SimpleNamespace(part=lambda _: part, classes=("a",))
    labels = np.zeros((1, 3, 4, 4), np.uint8)
    labels[..., 2:] = 1
    choosing = TrainingVolume("c", np.arange(48, dtype=np.uint8).reshape(3, 4, 4), labels, (8.0,) * 3, choose=(0, 3))
    far = subject(9, (0, 3, 8))
    far.truth_czyx[:, [0, 3, 8], :, 2:] = 1
    expected = {1: 1.0, 2: 1.0, 3: 1.0, 5: 0.0}
    # Nearer than the choose slices show: does not count, or Dice 0 would.
    near = subject(3, (0, 2))
    near.truth_czyx[:, 0, :, :2] = 1
    near.truth_czyx[:, 2, :, 2:] = 1
    assert dice_against_distance("n", [choosing], [far, near], config) == expected
    assert dice_against_distance("n", [], [far], config) == {}


def test_classes_are_carried_one_at_a_time(monkeypatch):
    def all_through(_network, _header, image_zyx, given):
        assert all(mask.shape == (1, 4, 4) for mask in given.values())
        filled = np.repeat(given[1][:, None], len(image_zyx), axis=1)
        return Propagation(filled * np.uint8(200), filled * np.uint8(100), tuple(given))

    network = SimpleNamespace(network=SimpleNamespace(eval=lambda: None), header=None)
    monkeypatch.setattr(round_zero, "load_checkpoint", lambda *_: network)
    monkeypatch.setattr(round_zero, "propagate_masks", all_through)
    one = subject(3, (1,))
    two = Subject("v", one.image_zyx, np.concatenate([one.truth_czyx] * 2), one.voxel_size_zyx_nm, 0)
    two.truth_czyx[0, 1, 0], two.truth_czyx[1, 1, 1:3] = 1, 1
    carried = carry("n", two, "cpu")
    assert carried.given == (1,)
    for k in (0, 1):
        inside = np.broadcast_to(two.truth_czyx[k, 1] == 1, (3, 4, 4))
        assert np.array_equal(carried.upward_czyx[k], inside * np.uint8(200))
        assert np.array_equal(carried.downward_czyx[k], inside * np.uint8(100))


def test_a_volume_class_by_class_holds_the_labels_of_one_class(make_volume):
    volume = make_volume()
    both = replace(volume, labels_czyx=np.concatenate([volume.labels_czyx, 1 - volume.labels_czyx]))
    one, other = class_by_class(both, ("mitochondrion", "rest"))
    assert (one.name, other.name) == ("ball, mitochondrion", "ball, rest")
    assert np.array_equal(one.labels_czyx, volume.labels_czyx)
    assert np.array_equal(other.labels_czyx, 1 - volume.labels_czyx)


def test_volumes_without_labels_do_not_count():
    assert expected_dice({1: 0.5}, [subject(3, (0, 1, 2)), subject(5, ())]) == 1.0
