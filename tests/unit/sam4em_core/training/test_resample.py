import numpy as np
import pytest

from sam4em_core.training.resample import axis_weights, resample_float, resample_labels, target_length


@pytest.mark.parametrize(("source_nm", "target_nm"), [(5.0, 8.0), (5.0, 10.0), (16.0, 10.0), (7.0, 7.0)])
def test_rows_of_weights_add_up_to_one(source_nm, target_nm):
    length = target_length(31, source_nm, target_nm)
    weights = axis_weights(31, length, source_nm, target_nm)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-6)


def test_a_coarser_voxel_is_the_mean_of_what_it_covers():
    image = np.arange(4, dtype=np.uint8).reshape(4, 1, 1)
    coarse = resample_float(image, (5, 5, 5), (10, 5, 5))
    np.testing.assert_allclose(coarse[:, 0, 0], [0.5, 2.5])


def test_a_part_covered_voxel_counts_by_its_part():
    image = np.array([0, 8, 0], np.uint8).reshape(3, 1, 1)
    coarse = resample_float(image, (5, 5, 5), (8, 5, 5))
    np.testing.assert_allclose(coarse[0, 0, 0], 8 * 3 / 8)


def test_a_finer_voxel_lies_between_centers():
    image = np.array([0, 8], np.uint8).reshape(2, 1, 1)
    fine = resample_float(image, (10, 5, 5), (5, 5, 5))
    np.testing.assert_allclose(fine[:, 0, 0], [0, 2, 6, 8])


def test_whole_voxels_only():
    assert target_length(116, 5.0, 8.0) == 72
    assert target_length(1, 5.0, 8.0) == 1


def test_a_lead_moves_the_result():
    image = np.arange(5, dtype=np.uint8).reshape(5, 1, 1)
    moved = resample_float(image, (5, 5, 5), (5, 5, 5), (2, 1, 1), lead_z_nm=10.0)
    np.testing.assert_allclose(moved[:, 0, 0], [2, 3])


def test_labels_need_half_of_a_voxel():
    labels = np.array([1, 0, 0, 0, 1, 1], np.uint8).reshape(6, 1, 1)
    assert resample_labels(labels, (5, 5, 5), (10, 5, 5), 255)[:, 0, 0].tolist() == [1, 0, 1]


def test_unlabelled_voxels_do_not_vote():
    labels = np.array([1, 255, 0, 255, 255, 255, 0, 0], np.uint8).reshape(8, 1, 1)
    assert resample_labels(labels, (5, 5, 5), (10, 5, 5), 255)[:, 0, 0].tolist() == [1, 0, 255, 0]
    assert resample_labels(labels, (5, 5, 5), (20, 5, 5), 255)[:, 0, 0].tolist() == [1, 0]
