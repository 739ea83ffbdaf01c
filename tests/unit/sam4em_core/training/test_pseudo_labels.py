import numpy as np
import pytest

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.pseudo_labels import (
    Evidence,
    agreement_of_classes,
    compare_tracks,
    dice_of,
    dice_per_slice,
    expected_iou,
    loss_weight,
    select,
    slice_quality,
    smoothed_disagreement,
    without_specks,
)
from sam4em_core.training.spatial_config import SelectionConfig

NM = (10.0, 10.0, 10.0)
KEEP_ALL = {"min_speck_nm3": 0.0, "leave_out_first": 0.0, "leave_out_later": 0.0}


def evidence(probability=None, disagrees=None, agreement=None, threshold=0.5):
    if probability is None:
        probability = np.zeros((1, 8, 6, 6), np.uint8)
        probability[0, :, 1:4, 1:4] = 255
    shape = probability.shape
    disagrees = np.zeros(shape, bool) if disagrees is None else disagrees
    agreement = np.ones(shape[1]) if agreement is None else np.array(agreement, float)
    return Evidence(probability, disagrees, agreement, (threshold,))


def nothing_labelled(item):
    return np.full(item.probability_czyx.shape, UNLABELLED, np.uint8)


def chosen(item, truth=None, *, is_first=True, **settings):
    truth = nothing_labelled(item) if truth is None else truth
    return select(item, truth, SelectionConfig(**{**KEEP_ALL, **settings}), NM, is_first=is_first)


def test_sure_voxels_are_taken_as_they_are():
    item = evidence()
    labels = chosen(item)
    assert np.array_equal(labels.labels_czyx == 1, item.probability_czyx == 255)
    assert labels.trusted_czyx.all()


def test_uncertain_voxels_are_left_to_the_distances_alone():
    item = evidence()
    item.probability_czyx[0, 2, 1, 1] = 140
    labels = chosen(item)
    assert labels.labels_czyx[0, 2, 1, 1] == UNLABELLED
    assert labels.trusted_czyx[0, 2, 1, 1]
    assert labels.mask_czyx[0, 2, 1, 1]
    assert chosen(item, uncertain=0.0).labels_czyx[0, 2, 1, 1] == 1


def test_where_the_tracks_disagree_nothing_is_learnt():
    disagrees = np.zeros((1, 8, 6, 6), bool)
    disagrees[0, 3, 2, 2] = True
    labels = chosen(evidence(disagrees=disagrees))
    assert labels.labels_czyx[0, 3, 2, 2] == UNLABELLED
    assert not labels.trusted_czyx[0, 3, 2, 2]


def test_of_a_class_that_the_tracks_disagree_about_only_the_truth_is_learnt():
    """With its objects left out it would be background alone."""
    one = evidence().probability_czyx
    disagrees = np.zeros((2, 8, 6, 6), bool)
    disagrees[1] = one[0] == 255
    disagrees[1, 0] = False
    item = Evidence(np.concatenate([one, one]), disagrees, np.full(8, 0.6), (0.5, 0.5))
    truth = nothing_labelled(item)
    truth[:, 4] = one[:, 4] == 255
    labels = chosen(item, truth)
    assert agreement_of_classes(item) == pytest.approx((1.0, 2 * 9 / (72 + 9)))
    assert labels.doubted == ()
    labels = chosen(item, truth, min_agreement=0.25)
    assert labels.doubted == (1,)
    others = [0, 1, 2, 3, 5, 6, 7]
    assert (labels.labels_czyx[1, others] == UNLABELLED).all()
    assert not labels.trusted_czyx[1, others].any()
    assert np.array_equal(labels.labels_czyx[1, 4], truth[1, 4])
    assert np.array_equal(labels.labels_czyx[0] == 1, one[0] == 255)


def test_truth_wins_over_everything():
    disagrees = np.ones((1, 8, 6, 6), bool)
    item = evidence(disagrees=disagrees, agreement=[0.0] * 8)
    truth = nothing_labelled(item)
    truth[0, 4] = 0
    truth[0, 4, 5, 5] = 1
    labels = chosen(item, truth, leave_out_first=0.9)
    assert np.array_equal(labels.labels_czyx[:, 4], truth[:, 4])
    assert labels.trusted_czyx[:, 4].all()
    assert np.array_equal(labels.mask_czyx[:, 4], truth[:, 4] == 1)
    assert 4 not in labels.left_out


@pytest.mark.parametrize(("is_first", "expected"), [(True, (2, 5)), (False, (5,))])
def test_the_worst_slices_are_left_out_fewer_later(is_first, expected):
    item = evidence(agreement=[1, 1, 0.5, 1, 1, 0.1, 1, 1])
    labels = chosen(item, is_first=is_first, leave_out_first=0.25, leave_out_later=0.125)
    assert labels.left_out == expected
    assert not labels.trusted_czyx[:, list(expected)].any()


def test_an_unsure_slice_is_worse_and_a_lone_track_counts_as_usual():
    item = evidence(agreement=[1, np.nan, 0.6, 1, 1, 1, 1, 1])
    item.probability_czyx[0, 0, 1:4, 1:4] = 150
    quality = slice_quality(item)
    assert quality[0] == pytest.approx(expected_iou(item)[0])
    assert expected_iou(item)[0] == pytest.approx((9 * 150 / 255 + 1) / 10)
    assert quality[1] == pytest.approx(np.mean([1, 0.6, 1, 1, 1, 1, 1]))
    assert quality[3] == 1.0


def test_specks_become_background_before_anything_else():
    mask = np.zeros((1, 5, 9, 9), bool)
    mask[0, :, 1:4, 1:4] = True
    mask[0, 2, 7, 7] = True
    found = without_specks(mask, 2)
    assert not found[0, 2, 7, 7]
    assert found[0, :, 1:4, 1:4].all()
    item = evidence(mask.astype(np.uint8) * 255)
    assert chosen(item, min_speck_nm3=2000.0).labels_czyx[0, 2, 7, 7] == 0


def test_tracks_may_differ_near_the_surface():
    field = np.full((1, 1, 1, 5), 0, np.uint8)
    field[0, 0, 0] = [0, 120, 133, 255, 255]
    inside = np.array([False, True, False, False, True]).reshape(field.shape)
    differs, dice = compare_tracks(field, inside, 0.1)
    assert differs.ravel().tolist() == [False, False, False, True, False]
    assert dice[0] == pytest.approx(2 * 1 / (3 + 2))


def test_dice_of_nothing():
    nothing = np.zeros((1, 2, 3, 3), bool)
    assert np.isnan(dice_per_slice(nothing, nothing)).all()
    assert dice_of(nothing, nothing) == 1.0
    assert dice_of(~nothing, nothing) == 0.0


def test_single_slices_are_judged_by_their_neighbors():
    probability = np.full((1, 5, 1, 1), 255, np.uint8)
    probability[0, 2] = 0
    differs, _ = smoothed_disagreement(probability, (0.5,))
    assert differs.ravel().tolist() == [False, False, True, False, False]


def test_weights_grow_evenly():
    config = SelectionConfig()
    assert [loss_weight(index, 3, config) for index in (1, 2, 3)] == [0.5, 0.75, 1.0]
    assert loss_weight(1, 1, config) == 0.5
