import numpy as np
import pytest

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.round_zero import expected_dice
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


def test_volumes_without_labels_do_not_count():
    assert expected_dice({1: 0.5}, [subject(3, (0, 1, 2)), subject(5, ())]) == 1.0
