import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import OurError
from pipeline.geometry import Box, covering_shape, source_box
from pipeline.image import SLAB_SLICES, resample

WHOLE = Box.of_shape((13, 17, 19))
IMAGE = np.random.default_rng(5).integers(0, 256, WHOLE.shape, np.uint8)


def on_lattice(target, ratio, image=IMAGE, bounds=WHOLE):
    box = source_box(target, ratio, bounds)
    return resample(image[box.slices], box, target, ratio, bounds)


@given(
    st.sampled_from([(2.0, 1.6, 1.0), (0.625, 0.5, 3.3), (1.0, 1.0, 1.0), (1.7, 0.9, 2.5)]),
    st.data(),
)
def test_any_box_has_the_bits_of_the_whole(ratio, data):
    shape = covering_shape(WHOLE.shape, ratio)
    whole = on_lattice(Box.of_shape(shape), ratio)
    start = tuple(data.draw(st.integers(0, extent - 1)) for extent in shape)
    stop = tuple(data.draw(st.integers(a + 1, extent)) for a, extent in zip(start, shape, strict=True))
    np.testing.assert_array_equal(on_lattice(Box(start, stop), ratio), whole[Box(start, stop).slices])


def test_halving_is_the_mean_of_pairs():
    found = on_lattice(Box.of_shape((6, 8, 9)), (2.0, 2.0, 2.0))
    expected = IMAGE[:12, :16, :18].astype(np.float64).reshape(6, 2, 8, 2, 9, 2).mean((1, 3, 5))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_partly_covered_voxels_weigh_by_their_share():
    image = np.array([10, 20, 30, 40, 50, 60, 70, 80], np.uint8).reshape(1, 1, 8)
    bounds = Box.of_shape((1, 1, 8))
    found = on_lattice(Box.of_shape((1, 1, 5)), (1.0, 1.0, 1.6), image, bounds)[0, 0]
    np.testing.assert_allclose(found[:2], [(10 + 0.6 * 20) / 1.6, (0.4 * 20 + 30 + 0.2 * 40) / 1.6], rtol=1e-6)


def test_doubling_interpolates_between_centers_and_repeats_the_border():
    image = np.array([0, 100], np.uint8).reshape(1, 1, 2)
    bounds = Box.of_shape((1, 1, 2))
    found = on_lattice(Box.of_shape((1, 1, 4)), (1.0, 1.0, 0.5), image, bounds)[0, 0]
    np.testing.assert_allclose(found, [0, 25, 75, 100], atol=1e-5)


def test_a_ramp_stays_a_ramp_in_the_right_axis():
    ramp = np.broadcast_to(np.arange(13, dtype=np.uint8)[:, None, None], WHOLE.shape)
    found = on_lattice(Box.of_shape((26, 17, 19)), (0.5, 1.0, 1.0), ramp)
    np.testing.assert_allclose(found[1:-1, 3, 4], (np.arange(26)[1:-1] + 0.5) / 2 - 0.5, atol=1e-5)
    assert np.ptp(found, axis=(1, 2)).max() == 0


def test_the_source_is_converted_slab_by_slab():
    whole = Box.of_shape((96, 256, 256))
    image = np.zeros(whole.shape, np.uint8)
    target = Box.of_shape((48, 128, 128))
    tracemalloc.start()
    try:
        found = on_lattice(target, (2.0, 2.0, 2.0), image, whole)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    slab = image.nbytes * SLAB_SLICES // target.shape[0]
    assert found.nbytes < peak < found.nbytes + 12 * slab
    assert 12 * slab < 4 * image.nbytes


def test_missing_source_voxels_are_our_error():
    with pytest.raises(OurError, match="lacks voxels"):
        resample(IMAGE[:2], Box.of_shape((2, 17, 19)), Box.of_shape((5, 17, 19)), (1.5, 1.0, 1.0), WHOLE)
    with pytest.raises(OurError, match="shape"):
        resample(IMAGE, Box.of_shape((2, 17, 19)), Box.of_shape((2, 17, 19)), (1.0, 1.0, 1.0), WHOLE)
