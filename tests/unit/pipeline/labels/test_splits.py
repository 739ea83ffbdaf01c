import edt
import numpy as np
import pytest

from pipeline.labels.splits import find_seeds, inside_distance, segment_watershed, split_by_distance


def balls(centers, radius, shape, spacing=(1.0, 1.0, 1.0)):
    grid = np.indices(shape)
    inside = np.zeros(shape, bool)
    for center in centers:
        square = sum(((grid[axis] - center[axis]) * spacing[axis]) ** 2 for axis in range(3))
        inside |= square < radius**2
    return np.where(inside, 255, 0).astype(np.uint8)


def test_two_balls_that_touch_are_two():
    image = balls([(11, 11, 11), (11, 11, 27)], 9.0, (23, 23, 41))
    labels = segment_watershed(image, 128, (1.0, 1.0, 1.0), 8.0)
    assert (labels > 0).tolist() == (image > 0).tolist()
    assert labels.max() == 2
    assert labels[11, 11, 11] != labels[11, 11, 27]
    counts = np.bincount(labels.ravel())[1:]
    assert counts.min() > 0.95 * counts.max()


def test_seeds_nearer_than_the_spacing_are_one():
    image = balls([(11, 11, 11), (11, 11, 27)], 9.0, (23, 23, 41))
    assert segment_watershed(image, 128, (1.0, 1.0, 1.0), 20.0).max() == 1


def test_a_tube_is_one_object():
    image = np.zeros((19, 23, 101), np.uint8)
    grid = np.indices(image.shape)
    wobble = 2 * np.sin(grid[2] / 7.0)
    image[(grid[0] - 9) ** 2 + (grid[1] - 11 - wobble) ** 2 < 36] = 255
    assert segment_watershed(image, 128, (1.0, 1.0, 1.0), 20.0).max() == 1


def test_distances_are_in_nanometers():
    spacing = (4.0, 1.0, 1.0)
    image = balls([(5, 23, 23), (10, 23, 23)], 12.0, (17, 47, 47), spacing)
    assert segment_watershed(image, 128, spacing, 10.0).max() == 2
    assert segment_watershed(image, 128, spacing, 22.0).max() == 1


def test_an_array_that_is_all_inside_or_all_outside():
    full = np.full((7, 11, 13), 255, np.uint8)
    assert (segment_watershed(full, 128, (1.0, 1.0, 1.0), 2.0) == 1).all()
    assert not segment_watershed(full // 255, 128, (1.0, 1.0, 1.0), 2.0).any()


def test_a_flat_map_has_no_seed():
    assert not find_seeds(np.zeros((5, 7, 11), np.float32), (1.0, 1.0, 1.0), 3.0).any()


def two_halves():
    """One box without a neck, and the distance that two objects with a common face would have."""
    inside = np.zeros((15, 21, 50), bool)
    inside[2:13, 3:18, 4:46] = True
    halves = inside.astype(np.uint32)
    halves[:, :, 25:][inside[:, :, 25:]] = 2
    distance = sum(edt.edt(halves == half, anisotropy=(8.0, 8.0, 8.0)) for half in (1, 2)).astype(np.float32)
    return inside, halves, np.minimum(distance, 64.0)


def test_a_predicted_distance_parts_what_has_no_neck():
    inside, halves, distance = two_halves()
    probability = np.where(inside, np.uint8(200), np.uint8(0))
    whole = segment_watershed(probability, 128, (8.0, 8.0, 8.0), 50.0)
    parted = segment_watershed(probability, 128, (8.0, 8.0, 8.0), 50.0, 0, distance)
    assert whole.max() == 1
    assert parted.max() == 2
    assert np.array_equal(parted > 0, inside)
    pairs = {tuple(pair) for pair in np.stack([parted[inside], halves[inside]], axis=1).tolist()}
    assert len(pairs) == 2


@pytest.mark.parametrize(("valley", "parts"), [(0.8, 1), (0.5, 1), (0.3, 2)])
def test_a_predicted_waist_does_not_part(valley, parts):
    inside = np.ones((5, 5, 60), bool)
    profile = 100 * (1 - (1 - valley) * np.sin(np.linspace(0, np.pi, 60)))
    distance = np.broadcast_to(profile.astype(np.float32), inside.shape)
    assert split_by_distance(inside, distance, (8.0, 8.0, 8.0), 100.0).max() == parts


@pytest.mark.parametrize(("fraction", "parts"), [(0.4, 1), (0.6, 2)])
def test_how_deep_a_valley_must_be_can_be_said(fraction, parts):
    inside = np.ones((5, 5, 60), bool)
    profile = 100 * (1 - 0.5 * np.sin(np.linspace(0, np.pi, 60)))
    distance = np.broadcast_to(profile.astype(np.float32), inside.shape)
    probability = np.full(inside.shape, 255, np.uint8)
    found = segment_watershed(probability, 128, (8.0, 8.0, 8.0), 100.0, 0, distance, fraction)
    assert found.max() == parts


def test_a_component_that_no_distance_calls_inside_stays_whole():
    inside, _, distance = two_halves()
    parted = split_by_distance(inside, distance * 0, (8.0, 8.0, 8.0), 100.0)
    assert np.array_equal(parted, inside.astype(np.uint32))


def test_stored_distances_are_nm_inside_and_zero_outside():
    stored = np.array([0, 127, 128, 255], np.uint8).reshape(1, 1, 4)
    np.testing.assert_allclose(inside_distance(stored, 255.0)[0, 0], [0, 0, 1, 255], atol=1e-4)
