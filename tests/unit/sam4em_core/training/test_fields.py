import numpy as np
import pytest
import torch

from sam4em_core.config import UnetConfig
from sam4em_core.sdf import signed_distance
from sam4em_core.training.data import to_working_lattice
from sam4em_core.training.fields import UNKNOWN, decoded, encoded, true_field, with_predicted_field, with_true_field
from sam4em_core.unet3d import build_unet, settle

SPACING = (9.0, 5.0, 5.0)
TAU = 40.0


def ball_labels(depth=70):
    z, y, x = np.ogrid[:depth, :41, :47]
    return ((z - 33) ** 2 * 3 + (y - 20) ** 2 + (x - 23) ** 2 < 15**2).astype(np.uint8)


def test_bytes_keep_a_distance_to_half_a_percent():
    field = np.linspace(-1, 1, 501, dtype=np.float32)
    back = decoded(torch.from_numpy(encoded(field))).numpy()
    assert np.abs(back - field).max() <= 0.5 / 127 + 1e-6
    assert decoded(torch.tensor([UNKNOWN], dtype=torch.uint8)).isnan().all()


def test_slabs_give_the_distances_of_the_whole():
    labels = ball_labels()
    found = true_field(labels, np.ones(labels.shape, bool), SPACING, TAU)
    assert np.array_equal(found, encoded(signed_distance(labels, SPACING, TAU)))


def test_what_an_unlabelled_voxel_may_hide_is_unknown():
    labels = ball_labels(40)
    known = np.ones(labels.shape, bool)
    known[:, :10] = False
    found = true_field(labels, known, SPACING, TAU)
    exact = encoded(signed_distance(labels, SPACING, TAU))
    is_known = found != UNKNOWN
    assert not is_known[:, :10].any()
    assert np.array_equal(found[is_known], exact[is_known])
    # Eight voxels of 5 nm cover tau: from there on nothing can hide.
    assert is_known[:, 19:].all()
    assert not is_known[:, 10:12].all()
    # Whatever fills the unlabelled part, the known distances stay.
    filled = labels.copy()
    filled[:, :10] = 1
    assert np.array_equal(encoded(signed_distance(filled, SPACING, TAU))[is_known], exact[is_known])


def test_touching_instances_are_parted_only_where_their_ids_are_given(make_volume):
    volume = make_volume()
    ids = volume.labels_czyx.astype(np.uint32)
    ids[..., 30:] *= 2
    working = to_working_lattice(volume, (8.0, 8.0, 8.0))
    as_mask = with_true_field(working, volume, (8.0, 8.0, 8.0), 64.0).field_czyx
    with_ids = with_true_field(working, make_volume(ids_czyx=ids), (8.0, 8.0, 8.0), 64.0).field_czyx
    assert as_mask.shape == working.labels_czyx.shape
    assert as_mask[0, 6, 26, 29] > 220
    assert 127 < with_ids[0, 6, 26, 29] < 140
    assert np.array_equal(as_mask > 127, working.labels_czyx == 1)


def test_distances_are_resampled_with_the_image_and_look_at_the_train_range_alone(make_volume):
    volume = make_volume(train=(4, 14), choose=(14, 19))
    working = to_working_lattice(volume, (16.0, 16.0, 16.0))
    found = with_true_field(working, volume, (16.0, 16.0, 16.0), 64.0)
    assert found.field_czyx.shape == working.labels_czyx.shape == (1, 5, 26, 30)
    other = volume.labels_czyx.copy()
    other[:, :4] = other[:, 14:] = 0
    again = with_true_field(working, make_volume(train=(4, 14), labels_czyx=other), (16.0, 16.0, 16.0), 64.0)
    assert np.array_equal(found.field_czyx, again.field_czyx)
    # A voxel that is half inside counts as inside; its distance is zero.
    inside = found.field_czyx >= 127
    assert (inside == (working.labels_czyx == 1)).mean() > 0.97


def test_predicted_distances_do_not_depend_on_the_slabs(make_volume, monkeypatch):
    torch.manual_seed(0)
    config = UnetConfig(
        widths=(8, 8, 8, 8), voxel_size_zyx_nm=(16, 16, 16), tau_nm=64, patch_zyx=(8, 16, 16), overlap_zyx=(2, 2, 2)
    )
    network = build_unet(config)
    settle(network, torch.rand(4, 1, 1, 8, 16, 16))
    working = to_working_lattice(make_volume(), (8.0, 8.0, 8.0))
    whole = with_predicted_field(working, network, (8.0, 8.0, 8.0)).field_czyx
    monkeypatch.setattr("sam4em_core.training.fields._SLAB_SLICES", 1)
    assert whole.shape == working.labels_czyx.shape
    assert len(np.unique(whole)) > 3
    assert np.array_equal(whole, with_predicted_field(working, network, (8.0, 8.0, 8.0)).field_czyx)


def test_a_volume_refuses_ids_beside_its_labels(make_volume):
    from sam4em_core.training.data import check_volume
    from sam4em_core.training.errors import TrainingSetupError

    with pytest.raises(TrainingSetupError, match="instance ids"):
        check_volume(make_volume(ids_czyx=np.ones((1, 19, 53, 61), np.uint32)), ("mitochondrion",))
