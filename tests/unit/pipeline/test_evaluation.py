import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import UserError, VolumeFormatError
from pipeline.evaluation import Placed, evaluate, place
from pipeline.geometry import Box

SIZE = (11.0, 5.0, 7.0)


@dataclass
class Stack:
    voxels: np.ndarray

    def read(self, box: Box) -> np.ndarray:
        assert Box.of_shape(self.voxels.shape).contains(box)
        return self.voxels[box.slices].copy()


@dataclass
class Info:
    shape_zyx: tuple[int, int, int]
    voxel_size_zyx_nm: tuple[float, float, float] | None
    origin_zyx_nm: tuple[float, float, float] | None
    format: str = "ome-zarr"


@dataclass
class Described(Stack):
    info: Info


def placed(voxels, size=SIZE, offset=(0, 0, 0), name="prediction"):
    return Placed(Stack(voxels), voxels.shape, size, offset, name)


def blobs(seed: int, shape=(13, 37, 41), cut=0.6) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    labels, _ = ndimage.label(noise > cut * noise.std())
    return labels.astype(np.uint64) * np.uint64(2**54 + 1)


def plain_hd95(pred: np.ndarray, true: np.ndarray) -> float:
    def surface(mask):
        return mask & ~ndimage.binary_erosion(mask, border_value=1)

    one, two = surface(pred > 0), surface(true > 0)
    to_two = ndimage.distance_transform_edt(~two, sampling=SIZE)[one]
    to_one = ndimage.distance_transform_edt(~one, sampling=SIZE)[two]
    return max(np.percentile(to_two, 95), np.percentile(to_one, 95))


@pytest.mark.parametrize("block", [(13, 37, 41), (5, 11, 17)])
def test_hd95_equals_a_plain_computation_whatever_the_blocks(block):
    pred, true = blobs(1), blobs(2, cut=1.0)
    scores = evaluate(placed(pred), placed(true, name="truth"), block_zyx=block)
    assert scores.surface is not None
    assert not scores.surface.at_least
    assert scores.surface.hd95_nm == pytest.approx(plain_hd95(pred, true), abs=0.01)


def test_hd95_of_two_voxels_by_hand_and_beyond_the_cap():
    pred, true = np.zeros((2, 3, 199), np.uint8), np.zeros((2, 3, 199), np.uint8)
    pred[0, 1, 1] = true[1, 1, 98] = 1
    exact = evaluate(placed(pred), placed(true), block_zyx=(2, 3, 19)).surface
    assert exact is not None
    assert exact.hd95_nm == pytest.approx((11.0**2 + (97 * 7.0) ** 2) ** 0.5, abs=0.005)
    capped = evaluate(placed(pred), placed(true), block_zyx=(2, 3, 19), hd95_cap_nm=300.0).surface
    assert capped is not None
    assert (capped.hd95_nm, capped.at_least) == (300.0, True)


def test_all_scores_do_not_depend_on_the_blocks():
    pred, true = blobs(3), blobs(3, cut=0.8)
    whole = evaluate(placed(pred), placed(true), block_zyx=pred.shape).as_dict()
    cut = evaluate(placed(pred), placed(true), block_zyx=(3, 7, 11)).as_dict()
    assert whole == cut
    assert whole["instances"]["ap50"] is not None
    json.dumps(whole)


def test_a_perfect_segmentation_under_other_ids():
    true = blobs(4)
    pred = np.where(true > 0, true + np.uint64(5), np.uint64(0))
    scores = evaluate(placed(pred), placed(true)).as_dict()
    assert scores["dice"] == scores["iou"] == scores["instances"]["ap75"] == 1.0
    assert scores["instances"]["voi_split_bits"] == scores["instances"]["voi_merge_bits"] == 0.0
    assert scores["instances"]["adapted_rand_error"] == pytest.approx(0.0)
    assert scores["hd95_nm"] == 0.0


def test_a_mask_as_truth_has_no_instance_scores_and_says_why():
    true = (blobs(5) > 0).astype(np.uint8)
    scores = evaluate(placed(blobs(5)), placed(true))
    assert scores.binary.iou == 1.0
    assert scores.instances is None
    assert "mask" in (scores.instances_absent or "")


def test_a_prediction_of_a_part_lies_where_its_offset_says():
    true = blobs(6)
    pred = true[3:, 5:30, 7:]
    scores = evaluate(placed(pred, offset=(3, 5, 7)), placed(true))
    assert scores.roi == Box((3, 5, 7), (13, 30, 41))
    assert scores.binary.iou == 1.0
    shifted = evaluate(placed(pred, offset=(2, 5, 7)), placed(true))
    assert (shifted.binary.iou or 0.0) < 0.9
    inner = evaluate(placed(pred, offset=(3, 5, 7)), placed(true), roi=Box((5, 7, 11), (11, 19, 29)))
    assert inner.as_dict()["voxels"] == 6 * 12 * 18


def test_a_coarser_truth_is_repeated():
    true = blobs(7, shape=(5, 17, 19))
    pred = true.repeat(2, axis=1).repeat(3, axis=2)[:, 3:, 4:]
    fine = (11.0, 2.5, 7.0 / 3)
    scores = evaluate(placed(pred, size=fine, offset=(0, 3, 4)), placed(true), block_zyx=(5, 11, 13))
    assert scores.binary.iou == 1.0
    assert scores.voxel_size_zyx_nm == pytest.approx(fine)
    assert scores.roi == Box((0, 3, 4), (5, 34, 57))


def test_without_voxel_size_overlap_is_scored_and_distance_is_not():
    scores = evaluate(placed(blobs(8), size=None), placed(blobs(8), size=None))
    assert scores.binary.dice == 1.0
    assert scores.surface is None
    assert scores.as_dict()["hd95_nm"] is None


def described(origin, format="ome-zarr", size=SIZE):
    voxels = blobs(9)
    return Described(voxels, Info(voxels.shape, size, origin, format))


def test_a_volume_is_placed_relative_to_the_truth():
    truth = described((11.0, -2.5, 3.0))
    assert place(truth, "truth", None, truth).offset_zyx == (0, 0, 0)
    assert place(described((44.0, -2.5, 17.0)), "prediction", None, truth).offset_zyx == (3, 0, 2)
    with pytest.raises(UserError, match="whole number"):
        place(described((44.0, 0.5, 17.0)), "prediction", None, truth)


def test_half_a_voxel_between_formats_is_no_distance():
    half = tuple(-size / 2 for size in SIZE)
    for k in (0, 1, 2, 3):
        corner = (k * SIZE[0], 0.0, 0.0)
        center = (half[0] + k * SIZE[0], half[1], half[2])
        found = place(described(corner, "precomputed"), "prediction", None, described(half))
        assert found.offset_zyx == (k, 0, 0)
        found = place(described(center), "prediction", None, described((0.0, 0.0, 0.0), "precomputed"))
        assert found.offset_zyx == (k, 0, 0)


@pytest.mark.parametrize("times", [2, 3])
def test_volumes_without_a_translation_begin_together_whatever_their_voxels(times):
    """Their first centers lie at 0, so their corners lie half of the two voxels' difference apart."""
    coarse = tuple(size * times for size in SIZE)
    fine_info = described(tuple(-size / 2 for size in SIZE))
    coarse_info = described(tuple(-size / 2 for size in coarse), size=coarse)
    assert place(fine_info, "prediction", None, coarse_info).offset_zyx == (0, 0, 0)
    assert place(coarse_info, "prediction", None, fine_info).offset_zyx == (0, 0, 0)
    # A writer that says where the corners are: both begin at 0, and one fine voxel before it.
    corner = described((0.0, 0.0, 0.0), size=coarse)
    assert place(described((0.0, 0.0, 0.0)), "prediction", None, corner).offset_zyx == (0, 0, 0)
    assert place(described((-SIZE[0], 0.0, 0.0)), "prediction", None, corner).offset_zyx == (-1, 0, 0)


def test_refuses_what_cannot_be_compared():
    labels = blobs(10)
    with pytest.raises(UserError, match="ratio"):
        evaluate(placed(labels, size=(11.0, 5.0, 10.0)), placed(labels))
    with pytest.raises(UserError, match="no voxel in common"):
        evaluate(placed(labels, offset=(100, 0, 0)), placed(labels))
    with pytest.raises(UserError, match="leaves"):
        evaluate(placed(labels), placed(labels), roi=Box((0, 0, 0), (14, 5, 5)))
    with pytest.raises(UserError, match="empty"):
        evaluate(placed(labels), placed(labels), roi=Box((2, 0, 0), (2, 5, 5)))
    with pytest.raises(VolumeFormatError, match="float32"):
        evaluate(placed(labels.astype(np.float32)), placed(labels))


def test_the_nearest_surface_may_lie_outside_the_first_halo():
    # The block of (2, 2, 2) sees (12, 12, 12), 173 nm away, within its first halo of 10 voxels, but the
    # nearest true voxel, 120 nm away, lies outside of it. Distances 0 and 120 nm: the percentile is 114.
    pred, true = np.zeros((17, 17, 19), np.uint8), np.zeros((17, 17, 19), np.uint8)
    pred[2, 2, 2] = pred[12, 12, 12] = true[12, 12, 12] = true[2, 2, 14] = 1
    size = (10.0, 10.0, 10.0)
    scores = evaluate(placed(pred, size=size), placed(true, size=size), block_zyx=(5, 5, 5))
    assert scores.surface is not None
    assert scores.surface.hd95_nm == pytest.approx(114.0, abs=0.01)
