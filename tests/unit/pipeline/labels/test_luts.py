import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.labels.luts import apply_lut, compact_core, mark_foreign, take_labels

LABELS = np.array([[[0, 1, 2, 1]]], np.uint32)


def test_labels_become_ids_that_no_float_can_hold():
    lut = np.array([0, 2**63 + 1, 0], np.uint64)
    assert [int(value) for value in apply_lut(LABELS, lut).ravel()] == [0, 2**63 + 1, 0, 2**63 + 1]


def test_background_stays_background():
    assert apply_lut(LABELS * 0, np.array([0], np.uint64)).tolist() == [[[0, 0, 0, 0]]]


@pytest.mark.parametrize(
    ("labels", "lut", "expected"),
    [
        (LABELS, np.array([0, 4], np.uint64), "label 2 has no entry in a map of 1"),
        (LABELS, np.array([3, 4, 5], np.uint64), "background for background"),
        (LABELS, np.array([], np.uint64), "background for background"),
        (LABELS.astype(np.int32), np.array([0, 4, 5], np.uint64), "unsigned"),
        (LABELS, np.array([0.0, 4.0, 5.0]), "unsigned"),
    ],
)
def test_maps_that_do_not_fit(labels, lut, expected):
    with pytest.raises(OurError, match=expected):
        apply_lut(labels, lut)


def test_labels_of_the_halo_alone_get_no_number():
    labels = np.array([[[1, 2, 2, 3, 4, 5, 5]]], np.uint32)
    lut = compact_core(labels, (slice(0, 1), slice(0, 1), slice(2, 5)))
    assert lut.tolist() == [0, 0, 1, 2, 3, 0]
    assert lut.dtype == np.uint32


def test_labels_of_the_halo_share_one_label_of_their_own():
    lut = np.array([0, 0, 1, 2, 0], np.uint32)
    assert mark_foreign(lut).tolist() == [0, 3, 1, 2, 3]
    assert lut.tolist() == [0, 0, 1, 2, 0]
    assert mark_foreign(np.zeros(1, np.uint32)).tolist() == [0]


def test_a_part_of_a_block_is_looked_up_like_the_whole():
    labels = np.arange(3 * 5 * 7, dtype=np.uint32).reshape(3, 5, 7) % 11
    lut = np.arange(11, dtype=np.uint64) + np.uint64(2**63)
    part = labels[1:, ::2, 3:]
    assert np.array_equal(take_labels(lut, part), lut[part])
    assert take_labels(lut.astype(np.uint32), labels[:0]).shape == (0, 5, 7)
