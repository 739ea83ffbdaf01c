import numpy as np
import pytest
import torch

from sam4em_core.axis import fewest_tiles
from sam4em_core.blocks import BlockInput, ModelCall, cut_tiles, probability_of, tile_images
from sam4em_core.errors import NonFiniteError


def test_tiles_are_cut_in_their_slots_and_reflected_where_data_end():
    axis = fewest_tiles(40, 32, 8, 32)
    call = ModelCall((axis, axis), 3, {2: (1, 0)})
    image = np.random.default_rng(0).random((2, 40, 40), dtype=np.float32)
    bounds = ((0, 0, 0), (2, 40, 40))
    block = BlockInput(image, (0, 0, 0), bounds, (2, 40, 40), (0, 0, 0), (2, 40, 40))
    found = tile_images(block, call, 1)
    assert found.shape == (3, 1, 32, 32)
    assert (found[:2] == 0).all()
    assert np.array_equal(found[2, 0, :16], image[1, 24:, :32])
    assert np.array_equal(found[2, 0, 16], image[1, 38, :32])
    moved = cut_tiles(image[:, 20:], (0, 20, 0), bounds, call)
    assert np.array_equal(moved[2, 1], found[2, 0])


def test_a_nan_is_an_error_that_names_the_slice():
    with pytest.raises(NonFiniteError, match="slice 7"):
        probability_of(torch.tensor([float("nan")]), 7)
