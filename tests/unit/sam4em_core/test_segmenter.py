import numpy as np
import pytest
import torch

from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.errors import CheckpointError, CoreConfigError, DeviceLostError, DeviceMemoryError
from sam4em_core.header import sha256_of
from sam4em_core.propagate import BlockInput, predict_block
from sam4em_core.segmenter import BlockPredictor, chosen_device, device_errors

SHAPE = (6, 70, 64)


@pytest.fixture
def saved(tiny_network, tiny_header, tmp_path):
    network = tiny_network()
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, network, tiny_header(network.config))
    return path


def test_predicts_what_the_network_predicts(saved):
    predictor = BlockPredictor(saved)
    image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    block = (image, (0, 0, 0), ((0, 0, 0), SHAPE), SHAPE, (1, 2, 3), (6, 70, 60))
    result = predictor.predict(*block)
    assert result.shape == (1, 5, 68, 57)
    assert result.dtype == np.uint8
    assert np.array_equal(result, predict_block(predictor._network, predictor.header, BlockInput(*block)))
    assert np.array_equal(result, BlockPredictor(saved).predict(*block))


def test_a_block_that_was_too_much_for_the_device_is_predicted_with_fewer_tiles(saved, monkeypatch):
    predictor = BlockPredictor(saved, batch=2)
    image = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    block = (image, (0, 0, 0), ((0, 0, 0), SHAPE), SHAPE, (0, 0, 0), SHAPE)
    encode = predictor._network.encode

    def encode_in_little_memory(image_B1HW):
        if len(image_B1HW) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(image_B1HW)

    monkeypatch.setattr(predictor._network, "encode", encode_in_little_memory)
    with pytest.raises(DeviceMemoryError, match="fewer tiles per call"):
        predictor.predict(*block)
    assert np.array_equal(predictor.predict(*block, batch=1), BlockPredictor(saved, batch=1).predict(*block))


def test_identity(saved):
    identity = BlockPredictor(saved).identity
    assert identity.name == "tiny"
    assert identity.weights_sha256 == sha256_of(saved)
    assert len(identity.config_digest) == 64


def test_threads_are_set(saved):
    BlockPredictor(saved, threads=2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"batch": 0}, {"device": "tpu"}, {"device": "cuda:7"}])
def test_unusable_settings_are_refused(saved, wrong):
    with pytest.raises(CoreConfigError):
        BlockPredictor(saved, **wrong)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="No such file"):
        BlockPredictor(tmp_path / "none.safetensors")


def test_auto_takes_what_is_there():
    assert chosen_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (torch.OutOfMemoryError("full"), DeviceMemoryError),
        (torch.AcceleratorError("unspecified launch failure"), DeviceLostError),
    ],
)
def test_device_failures_become_ours(raised, expected):
    with pytest.raises(expected, match="predicting block 3") as caught, device_errors("predicting block 3"):
        raise raised
    assert caught.value.__cause__ is raised


def test_other_errors_pass_unchanged():
    with pytest.raises(RuntimeError, match="a bug"), device_errors("predicting"):
        raise RuntimeError("a bug")
