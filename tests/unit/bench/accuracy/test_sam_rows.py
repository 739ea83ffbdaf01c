import numpy as np
import pytest
import torch
from sam_rows import OneDirection, describe_share, share_of

from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import build_model
from sam4em_core.propagate import BlockInput, predict_block

SMALL = {"embed_dim": 8, "d_model": 64, "memory_dim": 16, "memory_slots": 3, "decoder_mlp_dim": 32}


def header_of(model, **changes):
    values = {
        "model": model,
        "classes": tuple(f"c{index}" for index in range(model.num_classes)),
        "thresholds": (0.5,) * model.num_classes,
        "working_voxel_size_zyx_nm": (10, 10, 10),
        "accepted_voxel_size_nm": (4, 16),
        "tile_side": 32,
        "tile_overlap": 0,
        "window_slices": 3,
        "warm_up_slices": 2,
    }
    return CheckpointHeader(**{**values, **changes})


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(3)
    network = build_model(ModelConfig(**SMALL))
    path = tmp_path / "base.safetensors"
    save_checkpoint(path, network, header_of(network.config))
    return path


def test_the_share_of_a_base_is_told(base):
    told = describe_share(share_of(base, ModelConfig(**SMALL, memory="none", two_stage=False), ("c0",)), "phantom")
    assert told["from"] == "phantom"
    assert told["tensors_random"] == []
    assert {name.split(".")[0] for name in told["modules_of_base_left_out"]} == {"memory", "previous_prompt", "decoder"}
    told = describe_share(share_of(base, ModelConfig(**SMALL, num_classes=3), ("a", "b", "c")), "phantom")
    assert "adapter.class_query" in told["tensors_random"]
    assert not any(name.startswith("encoder.") for name in told["tensors_random"])


def predicted(network, header, image):
    shape = image.shape
    block = BlockInput(image, (0, 0, 0), ((0, 0, 0), shape), shape, (0, 0, 0), shape)
    return predict_block(network.eval(), header, block)


def test_one_direction_sees_nothing_above(tmp_path):
    torch.manual_seed(5)
    network = build_model(ModelConfig(**SMALL)).eval()
    for name, parameter in network.named_parameters():
        if name.startswith(("memory.", "previous_prompt.", "decoder.head.full")):
            parameter.data.mul_(3.0)
    header = header_of(network.config)
    rng = np.random.default_rng(0)
    image = rng.random((7, 32, 32), dtype=np.float32)
    changed = image.copy()
    changed[5:] = rng.random((2, 32, 32), dtype=np.float32)
    up = OneDirection(network)
    assert np.array_equal(predicted(up, header, image)[:, :5], predicted(up, header, changed)[:, :5])
    both = predicted(network, header, image)
    assert not np.array_equal(both[:, :5], predicted(network, header, changed)[:, :5])
    assert not np.array_equal(both, predicted(up, header, image))
