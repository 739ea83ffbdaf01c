import numpy as np
from scipy import ndimage

from pipeline.config.schema import ThresholdSegmenter
from pipeline.geometry import Box
from pipeline.segmenter import BlockImage, describe_segmenter, load_segmenter

VOXEL_NM = (8.0, 8.0, 8.0)
DOMAIN = Box.of_shape((17, 23, 29))
IMAGE = np.random.default_rng(7).integers(0, 256, DOMAIN.shape, np.uint8)


def predict(config, core, bounds=DOMAIN, image=IMAGE):
    demand = describe_segmenter(config, VOXEL_NM)
    box = demand.context(core, bounds, bounds)
    return load_segmenter(config, VOXEL_NM).predict(BlockImage(image[box.slices], box), core, bounds, bounds)[0]


def test_dark_and_bright_are_opposite():
    core = Box((2, 3, 5), (7, 11, 13))
    bright = predict(ThresholdSegmenter(kind="threshold", foreground="bright"), core)
    dark = predict(ThresholdSegmenter(kind="threshold", foreground="dark"), core)
    np.testing.assert_array_equal(bright, IMAGE[core.slices])
    np.testing.assert_array_equal(dark, 255 - IMAGE[core.slices])


def test_sixteen_bits_keep_the_upper_eight():
    image = IMAGE.astype(np.uint16) * 256 + 17
    config = ThresholdSegmenter(kind="threshold", foreground="bright")
    np.testing.assert_array_equal(predict(config, DOMAIN, image=image), IMAGE)


def test_a_smoothed_block_has_the_bytes_of_the_smoothed_volume():
    config = ThresholdSegmenter(kind="threshold", foreground="bright", smoothing_nm=12.0)
    whole = predict(config, DOMAIN)
    expected = ndimage.gaussian_filter(IMAGE.astype(float), 1.5, mode="nearest", radius=6)
    assert np.abs(whole - expected).max() <= 0.51
    for core in (Box((0, 0, 0), (5, 7, 11)), Box((5, 7, 11), (17, 23, 29)), Box((6, 9, 12), (7, 10, 13))):
        np.testing.assert_array_equal(predict(config, core), whole[core.slices])
