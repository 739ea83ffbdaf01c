"""Bodies drawn into the phantom's tissue: darker than it, and with membranes where two of them touch."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from touching_tissue import grown, rendered, touching

from pipeline.phantom.render import render
from pipeline.phantom.spec import PhantomSpec

SPEC = PhantomSpec(seed=7, shape_zyx=(12, 96, 96), voxel_size_zyx_nm=(15.0, 16.0, 16.0), noise_sigma=0.0)


def blocks():
    """Two bodies with one voxel between them, and one far away."""
    labels = np.zeros(SPEC.shape_zyx, np.uint32)
    labels[:, 20:60, 10:36] = 4
    labels[:, 20:60, 37:63] = 9
    labels[:, 70:90, 70:90] = 11
    return labels


def test_bodies_grow_until_they_meet_and_not_into_each_other():
    before = blocks()
    after = grown(before, 2)
    assert touching(before) == 0
    assert touching(after) == 2
    assert set(np.unique(after)) == {0, 1, 2, 3}
    for number, label in enumerate((4, 9, 11), start=1):
        assert np.all(after[before == label] == number)
    assert np.count_nonzero(after) > np.count_nonzero(before)


@pytest.fixture(scope="module")
def drawing():
    labels = grown(blocks(), 2)
    return labels, rendered(labels, SPEC).astype(float)


def test_bodies_are_darker_than_the_tissue_around(drawing):
    labels, grey = drawing
    assert np.median(grey[labels > 0]) < np.median(grey[labels == 0]) - 25


def test_a_face_between_two_bodies_is_a_membrane(drawing):
    _, grey = drawing
    face = grey[:, 30:50, 35:38].min(axis=2).mean()
    inside = grey[:, 30:50, 20:28].mean()
    assert face < inside - 8


def test_the_phantoms_own_mitochondria_are_left_out():
    spec = replace(SPEC, shape_zyx=(8, 192, 192))
    phantom = render(spec, spec.box, ("image", "mitochondria"))
    own = phantom.mitochondria_zyx > 0
    assert np.count_nonzero(own) > 500
    without = rendered(np.zeros(spec.shape_zyx, np.uint32), spec).astype(float)
    assert np.median(without[own]) > np.median(phantom.image_zyx[own]) + 25
    elsewhere = ~ndimage.binary_dilation(own, iterations=3)
    assert np.mean(without[elsewhere] != phantom.image_zyx[elsewhere]) < 1e-4
