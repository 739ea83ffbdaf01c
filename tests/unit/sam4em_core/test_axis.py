import numpy as np
import pytest

from sam4em_core.axis import fewest_tiles, reflected, valid_span


@pytest.mark.parametrize("multiple", [1, 8, 32])
@pytest.mark.parametrize(("largest", "overlap"), [(64, 7), (64, 32), (160, 80), (96, 12)])
@pytest.mark.parametrize("extent", [1, 63, 64, 65, 97, 161, 400, 1001])
def test_tiles_cover_and_their_weights_add_up_to_one(extent, largest, overlap, multiple):
    grid = fewest_tiles(extent, largest, overlap, multiple)
    assert grid.side % multiple == 0
    assert grid.side <= -(-largest // multiple) * multiple
    total = np.zeros(grid.span(grid.count - 1)[1])
    for tile in range(grid.count):
        total[slice(*grid.span(tile))] += grid.ramp(tile)
    assert len(total) >= extent
    np.testing.assert_allclose(total[:extent], 1, atol=1e-6)


def test_what_lies_outside_is_a_reflection_of_what_lies_inside():
    assert reflected((-3, 4), (-1, 9)).tolist() == [1, 0, -1, 0, 1, 2, 3]
    assert valid_span((12, 15), (0, 9)) == (8, 9)
