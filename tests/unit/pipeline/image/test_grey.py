import numpy as np
import pytest

from pipeline.image.grey import GreyRange, count_grey_values, histogram_range, is_constant, rescale


def test_rescale_maps_the_range_to_0_and_1_and_clips():
    image = np.array([[[0, 50, 100, 150, 255]]], np.uint8)
    np.testing.assert_allclose(rescale(image, GreyRange(50, 150)), [[[0, 0, 0.5, 1, 1]]], atol=1e-7)


def test_rescale_does_not_overflow_uint16():
    assert rescale(np.array([[[60000]]], np.uint16), GreyRange(0, 65535))[0, 0, 0] == pytest.approx(60000 / 65535)


def test_constant_blocks():
    assert is_constant(np.full((2, 3, 5), 7, np.uint8))
    image = np.full((2, 3, 5), 7, np.uint8)
    image[1, 2, 4] = 8
    assert not is_constant(image)


def test_histogram_of_pieces_is_that_of_the_whole():
    image = np.random.default_rng(3).integers(0, 256, (7, 11, 13), np.uint8)
    counted = count_grey_values([image[:3], image[3:]], image.dtype)
    np.testing.assert_array_equal(counted, np.bincount(image.ravel(), minlength=256))


def test_padding_and_saturation_do_not_count():
    histogram = np.zeros(256, np.int64)
    histogram[0] = histogram[255] = 10**9
    histogram[100:201] = 1000
    assert histogram_range(histogram, 0.002, 0.998) == GreyRange(100, 200)


def test_only_padding_gives_the_whole_range_of_what_is_there():
    histogram = np.zeros(256, np.int64)
    assert histogram_range(histogram, 0.002, 0.998) == GreyRange(0, 255)
    histogram[0] = 5
    assert histogram_range(histogram, 0.002, 0.998) == GreyRange(0, 1)
