import numpy as np
import pytest
import torch

from sam4em_core.errors import CoreConfigError, ImageShapeError
from sam4em_core.neighborhood import MemoryFaults, forward_propagation
from sam4em_core.propagation import Propagation, dice_by_distance, propagate_masks

CHAIN = {"source": "logits", "direction": "lower", "injection": "sigmoid"}


@pytest.fixture
def carrier(tiny_spatial):
    return tiny_spatial(memory=CHAIN)


def image_of(shape, seed=1):
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def mask_of(shape, z_shift=0):
    mask = np.zeros((1, *shape[1:]), np.uint8)
    mask[0, 8 + z_shift : 24 + z_shift, 10:30] = 1
    return mask


def test_the_given_mask_reaches_the_slices_after_it(carrier):
    window = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)
    with torch.inference_mode():
        masks = [forward_propagation(carrier, window, mask).refined_BTKHW for mask in (one, other)]
    assert masks[0].shape == (1, 2, 1, 64, 64)
    difference = (masks[0] - masks[1]).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-4).all()


def test_a_dropped_memory_hides_the_given_mask(carrier):
    window = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    nothing = MemoryFaults(memory_dropout=1.0)
    with torch.inference_mode():
        masks = [
            forward_propagation(carrier, window, torch.full((1, 1, 64, 64), value), faults=nothing).refined_BTKHW
            for value in (0.0, 1.0)
        ]
    assert torch.equal(*masks)


def test_training_and_inference_carry_the_same_masks(carrier, tiny_header):
    image = image_of((4, 64, 64))
    mask = mask_of(image.shape)
    header = tiny_header(carrier.config, batch_tiles=1)
    carried = propagate_masks(carrier, header, image, {0: mask})
    with torch.inference_mode():
        window = forward_propagation(carrier, torch.from_numpy(image)[None], torch.from_numpy(mask)[None].float())
    expected = window.refined_BTKHW[0].sigmoid().transpose(0, 1).numpy() * 255
    assert np.abs(carried.upward_czyx[:, 1:].astype(np.float32) - expected).max() <= 0.51


def test_what_is_given_stays_as_it_is_and_directions_begin_there(carrier, tiny_header):
    image = image_of((7, 64, 64))
    given = {2: mask_of(image.shape), 4: mask_of(image.shape, 9)}
    carried = propagate_masks(carrier, tiny_header(carrier.config), image, given)
    for z, mask in given.items():
        assert np.array_equal(carried.fused()[:, z], mask * 255)
    assert not carried.upward_czyx[:, :2].any()
    assert not carried.downward_czyx[:, 5:].any()
    assert carried.downward_czyx[:, 0].any()
    up, down = carried.distances()
    assert up.tolist() == [-1, -1, 0, 1, 0, 1, 2]
    assert down.tolist() == [2, 1, 0, 1, 0, -1, -1]


def test_reversing_z_swaps_the_directions(tiny_spatial, tiny_header):
    carrier = tiny_spatial(memory=CHAIN)
    image = image_of((5, 64, 64))
    one = propagate_masks(carrier, tiny_header(carrier.config), image, {1: mask_of(image.shape)})
    other = propagate_masks(carrier, tiny_header(carrier.config), image[::-1].copy(), {3: mask_of(image.shape)})
    assert np.array_equal(one.upward_czyx, other.downward_czyx[:, ::-1])


def test_the_nearer_labelled_slice_counts_more_and_a_lone_direction_cannot_disagree():
    upward, downward = np.zeros((1, 6, 1, 1), np.uint8), np.zeros((1, 6, 1, 1), np.uint8)
    upward[0, 1:] = 200
    downward[0, :5] = 40
    carried = Propagation(upward, downward, (1, 4))
    assert carried.fused()[0, :, 0, 0].tolist() == [40, 40, 147, 93, 40, 200]
    assert carried.disagreement()[0, :, 0, 0].tolist() == [False, True, True, True, True, False]


def test_dice_by_distance_counts_volumes_and_leaves_unknown_voxels_out():
    predicted = np.ones((1, 4, 1, 4), bool)
    truth = np.ones((1, 4, 1, 4), np.uint8)
    truth[0, 1, 0, :2] = 0
    truth[0, 2] = 255
    distances = np.array([0, 1, 2, 1])
    assert dice_by_distance(predicted, truth, distances) == {1: 12 / 14, 2: 1.0}
    # A class with few voxels counts as much as one with many, as in the score that this is compared with.
    small = np.zeros_like(truth)
    small[0, 1, 0, 0] = 1
    both = dice_by_distance(
        np.concatenate([predicted, np.zeros_like(predicted)]), np.concatenate([truth, small]), distances
    )
    assert both == {1: 6 / 14, 2: 1.0}
    # Where it is neither there nor found it is no success.
    small[:] = 0
    absent = dice_by_distance(
        np.concatenate([predicted, np.zeros_like(predicted)]), np.concatenate([truth, small]), distances
    )
    assert absent == {1: 12 / 14, 2: 1.0}


def test_bad_input(carrier, tiny_spatial, tiny_header):
    image = image_of((3, 64, 64))
    header = tiny_header(carrier.config)
    with pytest.raises(CoreConfigError, match="no slice is labelled"):
        propagate_masks(carrier, header, image, {})
    with pytest.raises(ImageShapeError, match="the mask of slice 3"):
        propagate_masks(carrier, header, image, {3: mask_of(image.shape)})
    with pytest.raises(ImageShapeError, match="at least two slices"):
        forward_propagation(carrier, torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64))
    with pytest.raises(CoreConfigError, match="source: logits carries masks"):
        propagate_masks(tiny_spatial(), header, image, {0: mask_of(image.shape)})
