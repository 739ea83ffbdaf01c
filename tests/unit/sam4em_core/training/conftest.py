"""A run small enough to train in seconds: a network of a few thousand weights, windows of 32 voxels."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sam4em_core.training import TrainingConfig, TrainingVolume
from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.spatial_config import SpatialConfig
from sam4em_core.training.subjects import SparseVolume

TINY_MODEL = {
    "embed_dim": 8,
    "stages": (1, 1, 1, 1),
    "windows": (4, 4, 4, 4),
    "global_blocks": (),
    "d_model": 64,
    "memory_slots": 2,
    "memory_dim": 8,
    "memory_heads": 1,
    "decoder_depth": 1,
    "decoder_heads": 1,
    "decoder_mlp_dim": 16,
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_volume():
    """A dark ball on a bright, noisy ground; 13 slices train, 5 choose."""

    def make(**changes):
        rng = np.random.default_rng(3)
        image = rng.integers(150, 230, (19, 53, 61), dtype=np.uint8)
        labels = np.zeros((1, *image.shape), np.uint8)
        labels[0, :, 11:41, 17:43] = 1
        image[labels[0] == 1] //= 3
        values = {
            "name": "ball",
            "image_zyx": image,
            "labels_czyx": labels,
            "voxel_size_zyx_nm": (8.0, 8.0, 8.0),
            "train": (0, 13),
            "choose": (14, 19),
        }
        return TrainingVolume(**{**values, **changes})

    return make


@pytest.fixture
def make_config():
    """One stage of a few steps; keywords change the config, `stage` the stage."""

    def make(stage=None, **changes):
        first = {
            "name": "only",
            "recipe": "pretrain",
            "steps": 4,
            "batch_windows": 1,
            "window_slices": 3,
            "crop_voxels": 32,
            "warmup_steps": 1,
            "learning_rate": 1e-3,
            **(stage or {}),
        }
        values = {
            "name": "tiny",
            "classes": ["mitochondrion"],
            "model": TINY_MODEL,
            "tile_voxels": 64,
            "tile_overlap_voxels": 8,
            "window_slices": 3,
            "warmup_slices": 1,
            "stages": [first],
            "checkpoint_every_steps": 2,
            "validation": {"every_steps": 100, "thresholds": [0.3, 0.5, 0.7]},
        }
        return TrainingConfig.model_validate({**values, **changes})

    return make


@pytest.fixture
def spatial_config(make_config):
    """Everything as small as it gets: one or two steps per training."""

    def make(*, with_direct=False, **changes):
        shared = make_config().model_dump(mode="json", exclude={"name", "stages", "unet"}, exclude_unset=True)
        shared["model"] = {**shared["model"], "memory_dim": 32, "sdf_memory": {"reach": 1, "mlp_dim": 16}}
        stage = {"name": "only", "recipe": "pretrain", "steps": 10, "batch_windows": 1, "window_slices": 3}
        stage = {**stage, "crop_voxels": 32, "warmup_steps": 1, "learning_rate": 1e-2, "final_rate_fraction": 1.0}
        shared |= {"ema_decay": 0.0, "checkpoint_every_steps": 100, "tensorboard": False}
        shared["validation"]["pictures"] = False
        unet = {"widths": (8, 8, 8, 8), "tau_nm": 64, "patch_zyx": (8, 16, 16), "overlap_zyx": (2, 2, 2)}
        values = {
            "name": "tiny",
            "shared": shared,
            "propagation": {"stages": [stage]},
            "sdf": {
                "voxel_size_zyx_nm": (16.0, 16.0, 16.0),
                "unet": unet,
                "stages": [{**stage, "window_slices": 8}],
            },
            "masks": {"stages": [{**stage, "recipe": "full"}]},
            "rounds": 1,
            "selection": {"min_speck_nm3": 0.0, "min_agreement": 0.0},
            "stop": {"min_change": 0.0, "min_gain": 0.0},
            "round_zero": {"films_per_slice": 1, "drift_slices": 3, "start": "best" if with_direct else "propagation"},
        }
        if with_direct:
            values["direct"] = {"stages": [{**stage, "window_slices": 1}]}
        return SpatialConfig.model_validate({**values, **changes})

    return make


@pytest.fixture
def sparse(make_volume):
    """The ball with two labelled slices of thirteen; the rest of its truth only scores."""

    def make(labelled=(1, 11), **changes):
        volume = make_volume(**changes)
        labels = volume.labels_czyx.copy()
        hidden = [z for z in range(13) if z not in labelled]
        labels[:, hidden] = UNLABELLED
        return SparseVolume(replace(volume, labels_czyx=labels), volume.labels_czyx)

    return make
