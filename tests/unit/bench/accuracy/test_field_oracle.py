from unittest.mock import patch

import numpy as np
import pytest
from field_oracle import by_unet_of, given

from sam4em_core import propagate
from sam4em_core.checkpoint import load_checkpoint, save_checkpoint
from sam4em_core.propagate import BlockInput, predict_block
from sam4em_core.rings import field_of_block

SHAPE = (7, 32, 32)
IMAGE = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
BLOCK = BlockInput(IMAGE, (0, 0, 0), ((0, 0, 0), SHAPE), SHAPE, (0, 0, 0), SHAPE)


@pytest.fixture
def spatial(small_spatial):
    """Make one whose mask follows its distances, so that others give another mask."""

    def make(seed, tau_nm=96.0):
        network, header = small_spatial(seed, tau_nm)
        for name, parameter in network.named_parameters():
            if name.startswith(("unet.", "sdf_memory.", "memory")):
                parameter.data.mul_(2.0)
        return network.eval(), header

    return make


def saved(folder, network, header):
    path = folder / "other.safetensors"
    save_checkpoint(path, network, header)
    return path


def test_the_distances_of_another_unet_stand_in_for_the_own(tmp_path, spatial):
    (network, header), (other, _) = spatial(1), spatial(2)
    own = predict_block(network, header, BLOCK)
    path = saved(tmp_path, other, header)
    with patch.object(propagate, "field_of_block", by_unet_of(path, network.unet)):
        found = predict_block(network, header, BLOCK)
    assert not np.array_equal(found, own)
    network.unet.load_state_dict(load_checkpoint(path).network.unet.state_dict())
    np.testing.assert_array_equal(found, predict_block(network, header, BLOCK))


def test_a_unet_of_other_settings_is_refused(tmp_path, spatial):
    network, header = spatial(1)
    other, other_header = spatial(1, tau_nm=128.0)
    path = saved(tmp_path, other, other_header)
    with pytest.raises(SystemExit, match=r"other.safetensors: its network has no U-Net like the row's.*tau_nm=96"):
        by_unet_of(path, network.unet)
    assert header.model.unet.tau_nm == 96.0


def test_given_distances_lie_where_the_block_lies(spatial):
    network, header = spatial(1)
    own = predict_block(network, header, BLOCK)
    field_czyx = field_of_block(network, header, BLOCK).inside((0, 0, 0), SHAPE)
    shifted = np.concatenate([np.zeros_like(field_czyx[:, :3]), field_czyx], axis=1)
    with patch.object(propagate, "field_of_block", given(shifted, 3)):
        found = predict_block(network, header, BLOCK)
    np.testing.assert_array_equal(found, own)
    with patch.object(propagate, "field_of_block", given(shifted, 0)):
        assert np.abs(predict_block(network, header, BLOCK).astype(int) - own.astype(int)).max() > 1
