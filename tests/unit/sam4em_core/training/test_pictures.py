import numpy as np
import pytest
from PIL import Image

from sam4em_core.training.pictures import SliceGallery, draw_slice
from sam4em_core.training.validate import ChooseRegion


@pytest.fixture
def region():
    """Three slices of 7 x 11 voxels, one context slice below; the last slice is empty."""
    truth = np.zeros((2, 3, 7, 11), np.uint8)
    truth[0, :2, 2:5, 3:8] = 1
    truth[:, 1, :, 9:] = 255
    image = np.linspace(0.0, 1.0, 5)[:, None, None] * np.ones((5, 7, 11))
    nm = (8.0, 8.0, 8.0)
    return ChooseRegion("v", image.astype(np.float32), 1, 3, truth, nm, nm, 0.0)


def test_worst_and_best_slice_are_drawn_and_named(tmp_path, region):
    probability = (region.truth_czyx == 1).astype(np.float32)
    probability[0, 1, 2:4] = 0.0
    gallery = SliceGallery()
    gallery.add(region, probability)
    gallery.add(region, np.zeros_like(probability))
    found = gallery.write(tmp_path / "new", (0.5, 0.5))
    assert found["best"] == {"volume": "v", "slice": 0, "iou": 1.0}
    assert found["worst"]["slice"] == 1
    assert found["worst"]["iou"] == pytest.approx(1 / 3, abs=1e-4)
    for name in ("worst", "best"):
        with Image.open(tmp_path / "new" / f"{name}.png") as picture:
            assert picture.size == (3 * 11 + 2 * 4, 7)


def test_empty_slices_are_not_ranked(tmp_path, region):
    region.truth_czyx[region.truth_czyx == 1] = 0
    gallery = SliceGallery()
    gallery.add(region, np.zeros(region.truth_czyx.shape, np.float32))
    assert gallery.write(tmp_path, (0.5, 0.5)) == {}
    assert not list(tmp_path.iterdir())


def test_panels_show_image_truth_and_prediction(region):
    probability = np.zeros(region.truth_czyx.shape, np.float32)
    probability[1, 1, 0, 0] = 0.9
    picture = draw_slice(region, probability, 1, (0.5, 0.5))
    image, truth, prediction = picture[:, :11], picture[:, 15:26], picture[:, 30:]
    assert (image == 128).all()
    assert (truth[2:5, 3:8] == truth[2, 3]).all()
    assert tuple(truth[2, 3]) == ((128 + 230) // 2, (128 + 159) // 2, 64)
    assert (truth[:, 9:] == 128 // 3).all()
    assert tuple(prediction[0, 0]) == ((128 + 86) // 2, (128 + 180) // 2, (128 + 233) // 2)
    assert (prediction[1:] == 128).all()
