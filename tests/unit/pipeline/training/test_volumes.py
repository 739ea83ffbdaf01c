import numpy as np
import pytest
import zarr

from pipeline.errors import ConfigError
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, load_volume
from pipeline.training.volumes import check_apart

CLASSES = ("glia", "mitochondrion")


def test_reads_image_and_labels_in_the_order_of_the_classes(stored, section):
    volume = load_volume(section(), CLASSES, StorageOptions())
    np.testing.assert_array_equal(volume.image_zyx, stored["image"][1])
    np.testing.assert_array_equal(volume.labels_czyx[0], stored["glia"][1] != 0)
    np.testing.assert_array_equal(volume.labels_czyx[1], stored["mito"][1] != 0)
    assert volume.voxel_size_zyx_nm == (8.0, 5.0, 5.0)
    assert volume.train == (0, 5)


def test_slices_beyond_the_limit_are_not_read(section):
    volume = load_volume(section(region={"z": [0, 5]}), CLASSES, StorageOptions())
    assert volume.image_zyx.shape == (5, 11, 13)
    assert volume.labels_czyx.shape == (2, 5, 11, 13)


def test_sparse_and_unlabelled_truth(stored, section):
    volume = load_volume(section(labelled_slices=[1, 3], unlabelled=4), CLASSES, StorageOptions())
    known = stored["mito"][1]
    assert (volume.labels_czyx[1, [0, 2, 4, 5, 6]] == 255).all()
    np.testing.assert_array_equal(volume.labels_czyx[1, 3] == 255, known[3] == 4)
    np.testing.assert_array_equal(volume.labels_czyx[1, 3] == 1, (known[3] != 0) & (known[3] != 4))


def test_draws_a_phantom():
    values = {
        "name": "p",
        "phantom": {"seed": 1, "shape_zyx": [3, 64, 67], "voxel_size_zyx_nm": [10.0, 10.0, 10.0]},
        "labels": {"glia": "glia"},
        "train": [0, 3],
    }
    one = TrainingFile.model_validate({"volumes": [values], "training": {}}).volumes[0]
    volume = load_volume(one, ("glia",), StorageOptions())
    assert volume.image_zyx.shape == (3, 64, 67)
    assert set(np.unique(volume.labels_czyx)) <= {0, 1}


def test_refuses_labels_of_another_shape(stored, tmp_path, section):
    zarr.create_array(str(tmp_path / "small"), data=np.zeros((7, 11, 12), np.uint8), chunks=(7, 11, 12))
    labels = {"mitochondrion": str(tmp_path / "small"), "glia": stored["glia"][0]}
    with pytest.raises(ConfigError, match="labels of mitochondrion"):
        load_volume(section(labels=labels), CLASSES, StorageOptions())


def test_refuses_classes_that_the_volume_does_not_have(section):
    with pytest.raises(ConfigError, match="synapse"):
        load_volume(section(), ("synapse",), StorageOptions())


def test_every_third_slice_of_the_train_range_is_labelled(section):
    volume = load_volume(section(train=[1, 6], choose=[6, 7], labelled_every=3), CLASSES, StorageOptions())
    unknown = (volume.labels_czyx == 255).all(axis=(0, 2, 3))
    assert unknown.tolist() == [True, False, True, True, False, True, False]


def test_refuses_a_labelled_slice_that_is_not_there(section):
    with pytest.raises(ConfigError, match="slice 7; the volume has 7"):
        load_volume(section(labelled_slices=[3, 7], train=[0, 9]), CLASSES, StorageOptions())


def test_a_region_keeps_the_count_of_slices_of_the_whole_volume(stored, section):
    region = {"z": [2, 7], "y": [3, 10], "x": [1, 12]}
    volume = load_volume(section(region=region, train=[2, 5], choose=[5, 7]), CLASSES, StorageOptions())
    np.testing.assert_array_equal(volume.image_zyx, stored["image"][1][2:7, 3:10, 1:12])
    np.testing.assert_array_equal(volume.labels_czyx[0], stored["glia"][1][2:7, 3:10, 1:12] != 0)
    assert (volume.train, volume.choose) == ((0, 3), (3, 5))


def test_slices_with_truth_are_counted_in_the_whole_volume_too(section):
    sparse = section(region={"z": [2, 7]}, train=[2, 7], labelled_slices=[3])
    volume = load_volume(sparse, CLASSES, StorageOptions())
    assert [(part != 255).all() for part in volume.labels_czyx[0]] == [False, True, False, False, False]


def test_refuses_a_region_outside(section):
    with pytest.raises(ConfigError, match="leaves the image"):
        load_volume(section(region={"y": [3, 12]}), CLASSES, StorageOptions())


def test_labels_say_what_they_mean(stored, section):
    path, values = stored["mito"]
    labels = {
        "mitochondrion": {"url": path, "values": [1, 3, 9999], "unlabelled": [2]},
        "glia": {"url": path, "background": 4},
    }
    volume = load_volume(section(labels=labels), CLASSES, StorageOptions())
    np.testing.assert_array_equal(volume.labels_czyx[1] == 1, (values == 1) | (values == 3))
    np.testing.assert_array_equal(volume.labels_czyx[1] == 255, values == 2)
    np.testing.assert_array_equal(volume.labels_czyx[0] == 1, values != 4)


def test_labels_of_a_part_leave_the_rest_without_truth(stored, tmp_path, section):
    small = np.ones((3, 4, 5), np.uint16)
    zarr.create_array(str(tmp_path / "small"), data=small, chunks=(3, 4, 5))
    labels = {
        "mitochondrion": {"url": str(tmp_path / "small"), "offset_zyx": [2, 3, -1]},
        "glia": stored["glia"][0],
    }
    volume = load_volume(section(labels=labels, region={"z": [1, 4]}, train=[1, 4]), CLASSES, StorageOptions())
    expected = np.full((3, 11, 13), 255, np.uint8)
    expected[1:, 3:7, :4] = 1
    np.testing.assert_array_equal(volume.labels_czyx[1], expected)
    with pytest.raises(ConfigError, match="nothing of the region"):
        load_volume(section(labels=labels, region={"z": [0, 2]}, train=[0, 2]), CLASSES, StorageOptions())


def test_a_region_must_not_train_here_and_choose_there(section):
    one = section(name="one", train=[0, 4])
    with pytest.raises(ConfigError, match=r"one and two.*\(0, 4\).*\(3, 6\)"):
        check_apart([one, section(name="two", train=None, choose=[3, 6])])
    check_apart([one, section(name="two", train=None, choose=[4, 6])])
    left, right = {"x": [0, 6]}, {"x": [6, 13]}
    check_apart([section(name="one", region=left), section(name="two", train=None, choose=[0, 5], region=right)])


def test_instance_ids_are_kept_where_they_are_asked_for(stored, section):
    assert load_volume(section(), CLASSES, StorageOptions()).ids_czyx is None
    volume = load_volume(section(unlabelled=4), CLASSES, StorageOptions(), with_ids=True)
    known = stored["mito"][1]
    ids = volume.ids_czyx[1]
    assert ids.dtype == np.uint32
    np.testing.assert_array_equal(ids != 0, volume.labels_czyx[1] == 1)
    assert (ids[known == 4] == 0).all()
    pairs = np.unique(np.stack([known[ids != 0].astype(np.int64), ids[ids != 0]], axis=1), axis=0)
    assert len(pairs) == len(np.unique(known[ids != 0])) > 1
