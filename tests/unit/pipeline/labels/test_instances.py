import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.instances import fill_small_holes, label_components, segment_components, threshold_mask


def test_the_threshold_itself_lies_inside():
    probability = np.array([[[0, 99, 100, 101, 255]]], np.uint8)
    assert threshold_mask(probability, 100).tolist() == [[[False, False, True, True, True]]]


@pytest.mark.parametrize("threshold", [0, 256, -3])
def test_thresholds_that_take_everything_or_nothing_are_refused(threshold):
    with pytest.raises(OurError, match=r"1\.\.255"):
        threshold_mask(np.zeros((2, 3, 5), np.uint8), threshold)


def test_voxels_that_share_an_edge_are_two_objects():
    mask = np.zeros((3, 5, 7), bool)
    mask[1, 1, 1] = mask[1, 2, 2] = mask[1, 2, 3] = True
    labels = label_components(mask)
    assert labels.dtype == np.uint32
    assert labels[1, 1, 1] == 1
    assert labels[1, 2, 2] == labels[1, 2, 3] == 2


def box_with_hole(extent):
    mask = np.zeros((11, 13, 17), bool)
    mask[1:10, 1:12, 1:16] = True
    mask[3 : 3 + extent, 4, 5] = False
    return mask


@pytest.mark.parametrize(("extent", "is_filled"), [(1, True), (3, True), (4, False), (5, False)])
def test_holes_below_the_extent_are_filled(extent, is_filled):
    filled = fill_small_holes(box_with_hole(extent), 4)
    assert filled[3, 4, 5] == is_filled
    assert not filled[0].any()


def test_a_hole_at_the_border_stays_open():
    mask = np.ones((5, 7, 11), bool)
    mask[0, 3, 5] = mask[2, 3, 5] = False
    filled = fill_small_holes(mask, 3)
    assert not filled[0, 3, 5]
    assert filled[2, 3, 5]


def test_holes_that_touch_at_a_corner_are_one():
    mask = np.ones((7, 11, 13), bool)
    for step in range(3):
        mask[2 + step, 3 + step, 4 + step] = False
    assert not fill_small_holes(mask, 3)[2, 3, 4]
    assert fill_small_holes(mask, 4).all()


def test_no_extent_fills_nothing():
    mask = box_with_hole(1)
    assert (fill_small_holes(mask, 0) == mask).all()
    assert segment_components(mask.astype(np.uint8), 1).max() == 1
