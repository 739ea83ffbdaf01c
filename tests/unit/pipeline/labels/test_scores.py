import math

import numpy as np
import pytest
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_voi

from pipeline.errors import OurError
from pipeline.labels.contingency import count_pairs
from pipeline.labels.scores import (
    BinaryScores,
    DistanceHistogram,
    adapted_rand,
    binary_scores,
    detection_scores,
    hausdorff_95,
    variation_of_information,
)


def labels(*values: int) -> np.ndarray:
    return np.array(values, np.uint64).reshape(1, 1, -1)


def random_pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 7, (5, 7, 11)).astype(np.uint64)
    pred = np.where(rng.random(true.shape) < 0.3, rng.integers(0, 9, true.shape), true).astype(np.uint64)
    return pred, true


def test_binary_scores_by_hand():
    scores = binary_scores(labels(1, 1, 1, 0, 0) > 0, labels(0, 1, 1, 1, 0) > 0)
    assert (scores.true_positive, scores.false_positive, scores.false_negative) == (2, 1, 1)
    assert scores.dice == pytest.approx(4 / 6)
    assert scores.iou == pytest.approx(0.5)
    assert scores.precision == scores.recall == pytest.approx(2 / 3)


def test_binary_scores_of_nothing_are_undefined_and_counts_add():
    nothing = BinaryScores(0, 0, 0)
    assert (nothing.dice, nothing.iou, nothing.precision, nothing.recall) == (None,) * 4
    assert BinaryScores(1, 2, 3) + BinaryScores(10, 20, 30) == BinaryScores(11, 22, 33)


def test_average_precision_by_hand():
    # Object 1: IoU 3/4 (found at 0.5, not above 0.75). 2: IoU 1. True 3 is missed, predicted 9 is made up.
    pred = labels(1, 1, 1, 0, 2, 2, 0, 0, 9)
    true = labels(1, 1, 1, 1, 2, 2, 3, 3, 0)
    table = count_pairs(pred, true)
    half, strict = detection_scores(table, 50), detection_scores(table, 75)
    assert (half.true_positive, half.false_positive, half.false_negative) == (2, 1, 1)
    assert half.average_precision == pytest.approx(0.5)
    assert (strict.true_positive, strict.false_positive, strict.false_negative) == (1, 2, 2)
    assert strict.average_precision == pytest.approx(1 / 5)
    assert strict.precision == strict.recall == pytest.approx(1 / 3)


def test_a_merge_of_two_equal_halves_matches_neither():
    table = count_pairs(labels(4, 4, 4, 4), labels(1, 1, 2, 2))
    assert detection_scores(table, 50).true_positive == 0


def test_detection_refuses_thresholds_without_unique_matches():
    with pytest.raises(OurError, match="50"):
        detection_scores(count_pairs(labels(1), labels(1)), 49)


def test_variation_of_information_by_hand():
    # One true object cut in two equal pieces: one bit of split, no merge; and the other way round.
    cut = variation_of_information(count_pairs(labels(1, 1, 2, 2), labels(5, 5, 5, 5)))
    assert cut is not None
    assert (cut.split, cut.merge) == pytest.approx((1.0, 0.0))
    fused = variation_of_information(count_pairs(labels(5, 5, 5, 5), labels(1, 1, 2, 2)))
    assert fused is not None
    assert (fused.split, fused.merge) == pytest.approx((0.0, 1.0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ignore", [True, False])
def test_agrees_with_scikit_image(seed, ignore):
    pred, true = random_pair(seed)
    table = count_pairs(pred, true)
    ignored = (0,) if ignore else ()
    split, merge = skimage_voi(true.astype(int), pred.astype(int), ignore_labels=ignored)
    ours = variation_of_information(table, ignore_truth_background=ignore)
    assert ours is not None
    assert (ours.split, ours.merge) == pytest.approx((split, merge))
    # scikit-image divides its "precision" by the pairs of the truth, against its own documentation.
    error, recall, precision = adapted_rand_error(true.astype(int), pred.astype(int), ignore_labels=ignored)
    rand = adapted_rand(table, ignore_truth_background=ignore)
    assert rand is not None
    assert (rand.error, rand.precision, rand.recall) == pytest.approx((error, precision, recall))


def test_nothing_left_to_compare_is_undefined():
    table = count_pairs(labels(1, 2), labels(0, 0))
    assert variation_of_information(table) is None
    assert adapted_rand(table) is None


@pytest.mark.parametrize("percent", [0.0, 37.0, 95.0, 100.0])
def test_percentile_equals_numpy_at_the_resolution(percent):
    values = np.random.default_rng(3).random(997) * 80.0
    first = DistanceHistogram.empty(100.0).plus(values[:311])
    assert first.plus(values[311:]).percentile_nm(percent) == pytest.approx(np.percentile(values, percent), abs=0.01)


def test_distances_beyond_the_cap_are_reported_as_such():
    near = DistanceHistogram.empty(100.0).plus(np.array([1.0] * 99))
    far = near.plus(np.array([250.0]), num_beyond=20)
    assert near.percentile_nm(95.0) == pytest.approx(1.0)
    assert far.percentile_nm(95.0) == math.inf
    score = hausdorff_95(near, far)
    assert score is not None
    assert (score.hd95_nm, score.at_least) == (100.0, True)


def test_hausdorff_of_empty_masks():
    empty = DistanceHistogram.empty(50.0)
    assert hausdorff_95(empty, empty) is None
    one = hausdorff_95(empty, empty.plus(np.zeros(0), num_beyond=3))
    assert one is not None and one.at_least
