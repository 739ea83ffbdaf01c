import numpy as np

from sam4em_core.training.parting import with_faces_outside
from sam4em_core.training.run import prepare_volumes


def two_blocks(make_volume, voxel_nm):
    """Two blocks that share a face at x = 30, and one that stands alone."""
    ids = np.zeros((1, 19, 53, 61), np.uint32)
    ids[:, 4:15, 10:30, 10:30] = 3
    ids[:, 4:15, 10:30, 30:50] = 8
    ids[:, 4:15, 40:50, 10:30] = 9
    labels = (ids > 0).astype(np.uint8)
    return make_volume(labels_czyx=labels, ids_czyx=ids, voxel_size_zyx_nm=(voxel_nm,) * 3)


def test_the_face_between_two_objects_is_outside_and_nothing_else(make_volume):
    volume = two_blocks(make_volume, 8.0)
    parted = with_faces_outside(volume, 12.0)
    removed = (volume.labels_czyx == 1) & (parted.labels_czyx == 0)
    assert removed.any()
    assert not np.any(removed[..., :28]) and not np.any(removed[..., 32:])
    # One voxel on each side; along the rim of the face the outside is as near as the other object.
    assert removed[0, 5:14, 11:29, 29:31].all()
    assert not np.any(removed[0, 4]) and not np.any(removed[..., 10, :])
    assert np.array_equal(parted.labels_czyx[0, :, 40:], volume.labels_czyx[0, :, 40:])
    assert parted.ids_czyx is volume.ids_czyx
    assert np.array_equal(volume.labels_czyx == 1, volume.ids_czyx > 0)


def test_a_wider_working_voxel_takes_more(make_volume):
    volume = two_blocks(make_volume, 4.0)
    counts = [int(np.sum(with_faces_outside(volume, width).labels_czyx == 0)) for width in (4.0, 8.0, 16.0)]
    assert counts[0] < counts[1] < counts[2]


def test_slabs_make_no_difference(make_volume, monkeypatch):
    volume = two_blocks(make_volume, 8.0)
    whole = with_faces_outside(volume, 12.0).labels_czyx
    monkeypatch.setattr("sam4em_core.training.fields._SLAB_SLICES", 3)
    assert np.array_equal(with_faces_outside(volume, 12.0).labels_czyx, whole)


def test_unlabelled_voxels_stay_unlabelled_and_a_mask_stays_as_it_is(make_volume):
    volume = two_blocks(make_volume, 8.0)
    labels = volume.labels_czyx.copy()
    labels[:, 16:] = 255
    parted = with_faces_outside(make_volume(labels_czyx=labels, ids_czyx=volume.ids_czyx), 12.0)
    assert np.array_equal(parted.labels_czyx == 255, labels == 255)
    mask = make_volume()
    assert with_faces_outside(mask, 12.0) is mask


def test_a_unet_is_taught_and_chosen_by_them_and_a_network_of_masks_is_not(make_config, make_volume):
    volume = two_blocks(make_volume, 8.0)
    parted = with_faces_outside(volume, 8.0)
    assert not np.array_equal(parted.labels_czyx, volume.labels_czyx)
    unet = {"target": "sdf", "model": {}, "augment": {"scale_fraction": 0.0, "elastic_voxels": 0.0}}
    for changes, expected in ((unet, parted), ({}, volume)):
        taught, working = prepare_volumes(make_config(**changes), [volume])
        assert np.array_equal(taught[0].labels_czyx, expected.labels_czyx)
        assert np.array_equal(working[0].labels_czyx, expected.labels_czyx[:, :13])
