import numpy as np
import pytest

from sam4em_core.training.data import (
    UNLABELLED,
    check_choosable,
    check_classes,
    check_cubes,
    check_volume,
    grey_range,
    to_working_lattice,
    working_range,
)
from sam4em_core.training.errors import TrainingSetupError

CLASSES = ("mitochondrion",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_zyx": np.zeros((19, 53, 61), np.float32)}, "float32"),
        ({"image_zyx": np.zeros((53, 61), np.uint8)}, "z, y, x"),
        ({"labels_czyx": np.zeros((1, 19, 53, 60), np.uint8)}, "labels have shape"),
        ({"labels_czyx": np.zeros((2, 19, 53, 61), np.uint8)}, "labels have shape"),
        ({"voxel_size_zyx_nm": (8.0, 0.0, 8.0)}, "above 0"),
        ({"train": (0, 20)}, "0:19"),
        ({"train": (7, 7)}, "not empty"),
        ({"choose": (11, 19)}, "share slices 11:13"),
        ({"train": None, "choose": None}, "neither"),
    ],
)
def test_refuses_volumes_that_cannot_train(make_volume, changes, message):
    with pytest.raises(TrainingSetupError, match=message):
        check_volume(make_volume(**changes), CLASSES)


def test_takes_a_good_volume(make_volume):
    check_volume(make_volume(), CLASSES)


def test_working_volume_holds_the_train_slices_only(make_volume):
    working = to_working_lattice(make_volume(voxel_size_zyx_nm=(5.0, 5.0, 5.0), train=(3, 13)), (10.0,) * 3)
    assert working.image_zyx.shape == (4, 26, 30)
    assert working.first_slice == 2
    assert working.image_zyx.dtype == np.uint8


def test_no_slice_beyond_the_range_is_read(make_volume):
    volume = make_volume()
    changed = volume.image_zyx.copy()
    changed[13:] = 0
    low, high = grey_range(volume.image_zyx)
    first = to_working_lattice(make_volume(grey_range=(low, high)), (10.0, 10.0, 10.0))
    second = to_working_lattice(make_volume(image_zyx=changed, grey_range=(low, high)), (10.0, 10.0, 10.0))
    np.testing.assert_array_equal(first.image_zyx, second.image_zyx)


def test_refuses_a_range_thinner_than_a_working_slice(make_volume):
    with pytest.raises(TrainingSetupError, match="no whole slice"):
        to_working_lattice(make_volume(train=(1, 2)), (20.0, 8.0, 8.0))


def test_working_range_rounds_inwards():
    assert working_range((120, 136), 5.0, 8.0) == (75, 85)
    assert working_range((1, 5), 5.0, 8.0) == (1, 3)


def test_grey_range_leaves_padding_out():
    image = np.zeros((10, 10, 10), np.uint8)
    image[5:] = 100
    image[5, 0] = 140
    image[9] = 255
    assert grey_range(image) == (100.0, 140.0)


def test_grey_range_of_a_constant_image_is_one_wide():
    assert grey_range(np.full((2, 3, 5), 7, np.uint8)) == (7.0, 8.0)


def test_refuses_a_class_without_a_voxel(make_volume):
    labels = np.zeros((1, 19, 53, 61), np.uint8)
    labels[0, :3] = UNLABELLED
    working = to_working_lattice(make_volume(labels_czyx=labels), (8.0, 8.0, 8.0))
    with pytest.raises(TrainingSetupError, match="'mitochondrion' has no voxel"):
        check_classes([working], CLASSES)


def test_choose_ranges_need_foreground_of_some_class(make_volume):
    one = make_volume().labels_czyx
    two = np.concatenate([one, np.zeros_like(one)])
    assert check_choosable([make_volume(labels_czyx=two)], ("a", "b")) == ("b",)
    assert check_choosable([make_volume(labels_czyx=two * 0, choose=None)], ("a", "b")) == ()
    with pytest.raises(TrainingSetupError, match="no class has a voxel in the choose ranges"):
        check_choosable([make_volume(labels_czyx=two * 0)], ("a", "b"))


def test_other_axes_need_images_of_cubes(make_volume):
    check_cubes([make_volume(), make_volume(voxel_size_zyx_nm=(30.0, 8.0, 8.0), train=None)])
    with pytest.raises(TrainingSetupError, match=r"ball: .* cubes; these measure \(30.0, 8.0, 8.0\)"):
        check_cubes([make_volume(voxel_size_zyx_nm=(30.0, 8.0, 8.0))])
