import numpy as np

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.drift import drifting_stack


def make_stack(seed=0, slices=8):
    image = np.full((64, 96), 200, np.uint8)
    labels = np.zeros((1, 64, 96), np.uint8)
    labels[0, 20:40, 30:60] = 1
    image[labels[0] == 1] = 40
    rng = np.random.default_rng(seed)
    return (
        image,
        labels,
        drifting_stack(image, labels, slices=slices, name="film", voxel_size_zyx_nm=(8.0, 8.0, 8.0), rng=rng),
    )


def test_the_first_slice_is_the_labelled_one():
    image, labels, stack = make_stack()
    assert np.array_equal(stack.image_zyx[0], image)
    assert np.array_equal(stack.labels_czyx[:, 0], labels)


def test_truth_moves_with_the_picture_and_further_away_more():
    _, labels, stack = make_stack()
    inside = stack.labels_czyx[0] == 1
    assert np.abs(np.median(stack.image_zyx[inside].astype(float)) - 40) < 5
    changed = [np.count_nonzero(part != labels[0]) for part in inside]
    assert changed[1] < changed[4] < changed[7]


def test_what_comes_from_outside_has_no_truth():
    stacks = [make_stack(seed)[2] for seed in range(3)]
    assert any((stack.labels_czyx[:, -1] == UNLABELLED).any() for stack in stacks)
    assert not any((stack.labels_czyx[:, 0] == UNLABELLED).any() for stack in stacks)


def test_the_same_stream_gives_the_same_film():
    assert np.array_equal(make_stack(5)[2].image_zyx, make_stack(5)[2].image_zyx)
