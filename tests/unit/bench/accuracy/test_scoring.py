import numpy as np
import pytest
from scoring import calibrate, mean_neighbor_iou, score_class, without_small, z_consistency


def bar(depth=5, side=13):
    mask = np.zeros((depth, side, side), bool)
    mask[:, 3:9, 4:11] = True
    return mask


def test_a_straight_bar_is_as_consistent_as_can_be():
    assert mean_neighbor_iou(bar()) == 1.0


def test_neighbor_iou_counts_pairs_alike_and_leaves_empty_pairs_out():
    mask = np.zeros((5, 3, 7), bool)
    mask[0, 0, :2] = True
    mask[1, 0, :4] = True
    # Pairs: 2 / 4, then 0 / 4, then two without a voxel.
    assert mean_neighbor_iou(mask) == pytest.approx(0.25)
    assert mean_neighbor_iou(np.zeros_like(mask)) is None


def test_a_flickering_mask_is_less_consistent_than_its_truth():
    flickering = bar()
    flickering[1::2] = False
    assert z_consistency(flickering, bar()) == 0.0
    assert z_consistency(bar(), bar()) == 1.0
    assert z_consistency(np.zeros_like(bar()), bar()) is None
    assert z_consistency(bar(), flickering) is None


def test_a_smoother_mask_than_the_truth_scores_above_one():
    truth = bar()
    truth[::2, 3] = False
    assert z_consistency(bar(), truth) > 1.0


def test_small_objects_are_dropped_and_the_others_numbered():
    labels = np.zeros((1, 3, 7), np.uint64)
    labels[0, 0, :3] = 1 << 62
    labels[0, 1, 0] = 5
    labels[0, 2, :5] = 7
    kept = without_small(labels, 3)
    assert kept[0, 1, 0] == 0
    assert sorted(np.unique(kept)) == [0, 1, 2]
    assert (kept[0, 2, :5] == kept[0, 2, 0]).all()


def test_the_truth_scores_full_marks():
    truth = bar().astype(np.uint8)
    truth[:, 11:, :3] = 1
    scores = score_class(truth == 1, truth, (10.0, 5.0, 5.0), has_objects=True, objects_zyx=None, min_object_voxels=2)
    assert scores["iou"] == scores["dice"] == scores["ap50"] == scores["ap75"] == scores["z_consistency"] == 1.0
    assert scores["hd95_nm"] == scores["voi_split_bits"] == scores["voi_merge_bits"] == 0.0
    assert scores["num_true"] == scores["num_predicted"] == 2


def test_a_sheet_has_no_object_scores():
    scores = score_class(
        bar(), bar().astype(np.uint8), (5.0, 5.0, 5.0), has_objects=False, objects_zyx=None, min_object_voxels=2
    )
    assert "ap50" not in scores


def test_given_objects_are_counted_and_not_the_components():
    truth, objects = bar().astype(np.uint8), bar().astype(np.uint64)
    objects[:, 3:9, 7:11] *= 2
    scores = score_class(bar(), truth, (5.0, 5.0, 5.0), has_objects=True, objects_zyx=objects, min_object_voxels=2)
    assert (scores["num_true"], scores["num_predicted"]) == (2, 1)
    assert scores["voi_merge_bits"] > 0


def test_the_threshold_parts_inside_from_outside():
    truth = bar().astype(np.uint8)
    probability = np.where(truth == 1, 0.33, 0.26).astype(np.float32)
    chosen = calibrate(probability, truth)
    assert chosen.threshold == 0.3
    assert chosen.iou == 1.0
