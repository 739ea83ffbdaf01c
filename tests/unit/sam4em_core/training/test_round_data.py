import numpy as np
import pytest

from sam4em_core.sdf import signed_distance
from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.fields import UNKNOWN, encoded
from sam4em_core.training.pseudo_labels import PseudoLabels
from sam4em_core.training.round_data import hidden_scores, mask_volumes, sdf_volumes
from sam4em_core.training.subjects import Subject

NM = (8.0, 8.0, 8.0)


@pytest.fixture
def subject():
    truth = np.full((1, 6, 12, 12), UNLABELLED, np.uint8)
    truth[:, 2] = 0
    truth[:, 2, 3:9, 3:9] = 1
    hidden = np.zeros(truth.shape, np.uint8)
    hidden[:, :, 3:9, 3:9] = 1
    return Subject("v", np.zeros(truth.shape[1:], np.uint8), truth, NM, 0, hidden)


@pytest.fixture
def labels(subject):
    mask = subject.hidden_czyx == 1
    trusted = np.ones(mask.shape, bool)
    trusted[0, 4] = False
    trusted[0, 1, 5, 5] = False
    return {"v": PseudoLabels(mask, trusted, np.where(trusted, mask, UNLABELLED).astype(np.uint8), (4,))}


def test_distances_are_those_of_the_whole_mask_where_it_is_trusted(subject, labels):
    (volume,) = sdf_volumes([subject], labels, 64.0)
    known = labels["v"].trusted_czyx
    expected = encoded(signed_distance(labels["v"].mask_czyx[0], NM, 64.0))
    assert np.array_equal(volume.field_czyx[known], expected[None][known])
    assert (volume.field_czyx[~known] == UNKNOWN).all()
    assert (volume.labels_czyx[~known] == UNLABELLED).all()


def test_truth_has_windows_of_its_own(subject, labels):
    pseudo, truth = mask_volumes([subject], labels, 0.5, 0.25)
    assert (pseudo.loss_share, pseudo.draw_share) == (0.5, None)
    assert (truth.loss_share, truth.draw_share) == (1.0, 0.25)
    assert np.array_equal(truth.labels_czyx, subject.truth_czyx)
    assert len(mask_volumes([subject], labels, 0.5, 0.0)) == 1


def test_hidden_truth_scores_the_unlabelled_slices_alone(subject):
    inside = subject.hidden_czyx == 1
    inside[:, 2] = False
    scores = hidden_scores(subject, inside)
    assert scores["dice"] == 1.0
    assert scores["dice_by_slice"] == [1.0, 1.0, None, 1.0, 1.0, 1.0]
