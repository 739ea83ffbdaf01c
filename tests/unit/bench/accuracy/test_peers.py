import numpy as np
import pytest
import torch
from peers import axis_of, predict_peer, windows_forward
from torch import nn

from sam4em_core.training.validate import ChooseRegion


class Grey(nn.Module):
    """Gives the grey value as a logit."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x * self.weight


@pytest.mark.parametrize(("dimensions", "tile"), [(3, [8, 64]), (2, [1, 64])])
def test_tiles_blend_to_the_pointwise_result(dimensions, tile):
    rng = np.random.default_rng(1)
    image = rng.random((13, 101, 67), dtype=np.float32)
    region = ChooseRegion("v", image, 2, 7, np.zeros((1, 7, 101, 67), np.uint8), (10.0,) * 3, (10.0,) * 3, 0.0)
    found = predict_peer(Grey(), {"dimensions": dimensions, "tile": tile}, region)
    assert found.shape == (1, 7, 101, 67)
    assert found[0] == pytest.approx(1 / (1 + np.exp(-image[2:9])), abs=1e-6)


@pytest.mark.parametrize(("extent", "side", "overlap"), [(101, 64, 32), (64, 64, 32), (13, 8, 2), (5, 1, 0), (3, 8, 2)])
def test_tiles_cover_an_axis_with_weights_that_add_up_to_one(extent, side, overlap):
    axis = axis_of(extent, side, overlap)
    total = np.zeros(axis.span(axis.count - 1)[1])
    for tile in range(axis.count):
        start, stop = axis.span(tile)
        total[start:stop] += axis.ramp(tile)
    assert len(total) >= extent
    assert total[:extent] == pytest.approx(1.0)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_windows_keep_their_order(dimensions):
    image = torch.rand(2, 3, 5, 7)
    assert torch.equal(windows_forward(nn.Identity(), image, dimensions)[:, :, 0], image)
