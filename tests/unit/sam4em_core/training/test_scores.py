import numpy as np
import pytest

from sam4em_core.training.scores import OverlapCounts, best_threshold, count_overlap


def test_counts_by_hand_leave_unlabelled_voxels_out():
    probability = np.array([0.9, 0.9, 0.1, 0.1, 0.9, 0.5], np.float32).reshape(1, 2, 3)
    truth = np.array([1, 0, 1, 0, 255, 1], np.uint8).reshape(1, 2, 3)
    assert count_overlap(probability, truth, 0.5, 255) == OverlapCounts(2, 1, 1)


def test_scores_by_hand():
    counts = OverlapCounts(6, 2, 4)
    assert counts.iou == pytest.approx(0.5)
    assert counts.dice == pytest.approx(12 / 18)


def test_two_empty_masks_agree():
    assert OverlapCounts().iou == 1.0
    assert OverlapCounts().dice == 1.0
    assert OverlapCounts(0, 1, 0).iou == 0.0


def test_volumes_add_up():
    assert OverlapCounts(1, 2, 3) + OverlapCounts(10, 20, 30) == OverlapCounts(11, 22, 33)


def test_takes_the_best_threshold_and_among_equals_the_middle_one():
    good, bad = OverlapCounts(5, 1, 1), OverlapCounts(1, 5, 5)
    assert best_threshold((0.3, 0.5, 0.7), (bad, bad, good)).threshold == 0.7
    assert best_threshold((0.3, 0.5, 0.7), (good, good, good)).threshold == 0.5


def test_says_whether_there_was_anything_to_find():
    assert not best_threshold((0.5,), (OverlapCounts(0, 3, 0),)).has_truth
    assert best_threshold((0.5,), (OverlapCounts(0, 3, 1),)).has_truth
