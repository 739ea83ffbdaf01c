import numpy as np
import pictures
from pictures import painted, shown_slices


def test_slices_that_show_every_class_are_preferred():
    truth = np.zeros((2, 11, 3, 3), np.uint8)
    truth[0, :8, 0, 0] = 1
    truth[1, 4:, 1, 1] = 1
    assert shown_slices(truth, 2) == (5, 7)
    assert shown_slices(np.zeros((1, 9, 3, 3), np.uint8)) == (1, 4, 7)


def test_a_mask_is_tinted_and_the_rest_stays_grey():
    image = np.full((3, 5), 100, np.uint8)
    mask = np.zeros((1, 3, 5), bool)
    mask[0, 1, 2] = True
    picture = painted(image, mask)
    assert picture.shape == (3, 5, 3)
    assert (picture[0, 0] == 100).all()
    assert picture[1, 2, 0] > picture[1, 2, 2]


def test_nothing_is_drawn_inside_the_repository(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pictures.py", "lucchi", str(pictures.REPOSITORY / "docs")])
    assert pictures.main() == 2
    assert "inside the repository" in capsys.readouterr().err
