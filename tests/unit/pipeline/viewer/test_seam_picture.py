import io

import numpy as np
import pytest
from PIL import Image

from pipeline.viewer.overview import CAPTION_PIXELS, GAP_PIXELS
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.seam_picture import DIFFERENT, PANEL_PIXELS, Seam, draw_seam


def make_seam(axis):
    """Two blocks that agree about object 1 and disagree in one corner."""
    shape = [40, 60, 80]
    shape[axis] = 6
    lower = np.zeros(shape, np.uint64)
    lower[2:5, 20:40, 20:40] = 1
    upper = lower.copy()
    upper[:, -12:, -14:] = 9
    return Seam(lower, upper, lower != upper, (10.0, 5.0, 5.0), (300.0, 500.0, 700.0), axis, 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_place_that_differs_is_shown_red(axis):
    image = BoxReader.of_array(np.random.default_rng(0).integers(0, 255, (90, 190, 250), np.uint8), (10.0, 5.0, 5.0))
    seam = make_seam(axis)
    data = draw_seam(image, seam, "a face")
    assert data == draw_seam(image, seam, "a face")
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    is_red = (pixels == DIFFERENT).all(axis=2)
    assert pixels.shape[1] <= 4 * PANEL_PIXELS + 5 * GAP_PIXELS
    # Neither image nor labels are marked, and both rows have a panel that is.
    assert not is_red[:, : pixels.shape[1] // 4].any()
    rows = np.flatnonzero(is_red.any(axis=1))
    assert rows[0] > CAPTION_PIXELS
    assert (np.diff(rows) > CAPTION_PIXELS).sum() == 1


def test_an_image_of_another_voxel_size_is_drawn_in_its_place():
    grey = (np.arange(45 * 95 * 125) % 60_000).astype(np.uint16).reshape(45, 95, 125)
    coarse = BoxReader.of_array(grey, (20.0, 10.0, 10.0))
    fine = BoxReader.of_array(np.kron(grey, np.ones((2, 2, 2), np.uint16)), (10.0, 5.0, 5.0))
    seam = make_seam(0)
    assert draw_seam(coarse, seam, "x") == draw_seam(fine, seam, "x")
