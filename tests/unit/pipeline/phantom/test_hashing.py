import numpy as np

from pipeline.phantom.hashing import (
    draw,
    draw_directions,
    gaussian_voxels,
    hash_cells,
    mix,
    smooth_noise,
    stream_key,
)


def test_splitmix_against_its_published_first_output():
    # Seed 0 of SplitMix64 gives 0xE220A8397B1DCDAF first.
    assert int(mix(np.array([0x9E3779B97F4A7C15], np.uint64))[0]) == 0xE220A8397B1DCDAF


def test_uniform_numbers_are_uniform_and_differ_by_counter():
    cells = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    keys = hash_cells(stream_key(1, 2), cells)
    assert len(np.unique(keys)) == len(cells)
    values = draw(keys, 0)
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(values.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(values, draw(keys, 1))[0, 1]) < 0.05
    assert np.allclose((draw_directions(keys, 3) ** 2).sum(axis=1), 1.0)


def test_noise_has_the_promised_moments():
    axes = (np.arange(-7, 12), np.arange(31), np.arange(29))
    white = gaussian_voxels(stream_key(5, 1), axes)
    assert abs(white.mean()) < 0.03
    assert abs(white.std() - 1.0) < 0.02
    places = tuple((axis + 0.5) * 5.0 for axis in (np.arange(61.0), np.arange(59.0), np.arange(67.0)))
    smooth = smooth_noise(stream_key(5, 2), places, 20.0)
    assert abs(smooth.mean()) < 0.15
    assert 0.8 < smooth.std() < 1.25
    assert np.abs(np.diff(smooth, axis=0)).max() < 1.5


def test_noise_at_a_place_does_not_depend_on_the_box():
    places = tuple((np.arange(17.0) - 5.0) * 3.0 for _ in range(3))
    whole = smooth_noise(stream_key(7, 1), places, 11.0)
    part = smooth_noise(stream_key(7, 1), (places[0][3:5], places[1][7:], places[2][:2]), 11.0)
    assert np.array_equal(part, whole[3:5, 7:, :2])
