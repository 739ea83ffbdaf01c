from dataclasses import replace

import numpy as np
import pytest

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.subjects import SparseVolume, spread_in_z, subjects_of

CLASSES = ("mitochondrion",)


@pytest.fixture
def sparse(make_volume):
    def make(labelled, **changes):
        volume = make_volume(**changes)
        labels = volume.labels_czyx.copy()
        labels[:, [z for z in range(19) if z not in labelled]] = UNLABELLED
        return SparseVolume(replace(volume, labels_czyx=labels), volume.labels_czyx, (1.0, 2.0, 3.0), 100)

    return make


def test_a_labelled_slice_speaks_for_the_working_slice_it_lies_in(sparse):
    volume = sparse((5,)).volume
    spread = spread_in_z(volume, 32.0)
    known = (spread.labels_czyx != UNLABELLED).all(axis=(0, 2, 3))
    assert np.flatnonzero(known).tolist() == [4, 5, 6, 7]
    assert np.array_equal(spread.labels_czyx[:, 7], volume.labels_czyx[:, 5])
    assert spread_in_z(volume, 8.0) is volume


def test_the_nearer_of_two_labelled_slices_speaks(sparse):
    volume = sparse((4, 7)).volume
    volume.labels_czyx[0, 7] = 0
    spread = spread_in_z(volume, 32.0)
    assert np.array_equal(spread.labels_czyx[:, 5], volume.labels_czyx[:, 4])
    assert not spread.labels_czyx[:, 6].any()


def test_on_the_working_lattice(sparse):
    (subject,) = subjects_of([sparse((5,), train=(2, 13))], CLASSES, (16.0, 16.0, 16.0))
    assert subject.image_zyx.shape == (5, 26, 30)
    assert subject.labelled == (1,)
    assert subject.first_slice == 1
    assert subject.corner_zyx_nm == (1.0 + 16.0, 2.0, 3.0)
    # The middle of working slice 1 is slice 3 of what was read, which is slice 103 of the image.
    assert subject.image_slices == (103, 105, 107, 109, 111)
    assert subject.hidden_czyx.shape == subject.truth_czyx.shape
    assert not (subject.hidden_czyx == UNLABELLED).any()


def test_one_volume_of_two_may_have_no_labels(sparse, caplog):
    subjects = subjects_of([sparse((5, 9)), sparse((), name="other")], CLASSES, (8.0, 8.0, 8.0))
    assert [len(subject.labelled) for subject in subjects] == [2, 0]
    assert "other: no slice is labelled" in caplog.text


@pytest.mark.parametrize("labelled", [(6,), (0, 1), (12,), (11, 12)])
def test_one_labelled_slice_and_labels_at_one_end_are_warned_of(sparse, caplog, labelled):
    subjects_of([sparse(labelled)], CLASSES, (8.0, 8.0, 8.0))
    assert "masks are carried one way only" in caplog.text


def test_labels_on_both_sides_are_not_warned_of(sparse, caplog):
    subjects_of([sparse((0, 12))], CLASSES, (8.0, 8.0, 8.0))
    assert not caplog.text


def test_a_slice_labelled_in_part_is_not_a_labelled_slice(sparse):
    item = sparse((5, 9))
    item.volume.labels_czyx[:, 9, :30] = UNLABELLED
    (subject,) = subjects_of([item], CLASSES, (8.0, 8.0, 8.0))
    assert subject.labelled == (5,)


def test_nothing_to_train_on(sparse):
    with pytest.raises(TrainingSetupError, match="no volume has a train range"):
        subjects_of([sparse((15,), train=None)], CLASSES, (8.0, 8.0, 8.0))
