"""The model on a GPU against the same model on the CPU. Run where there is one: `pytest -m gpu tests/gpu`."""

import numpy as np
import pytest
import torch

from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, render
from pipeline.segmenter import model_path
from sam4em_core.errors import DeviceMemoryError
from sam4em_core.segmenter import BlockPredictor
from sam4em_core.training import TrainingConfig, train
from sam4em_core.training.data import TrainingVolume

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device"),
]

SHAPE = (13, 128, 160)
SIZE_NM = (10.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def tissue():
    """A phantom: image in [0, 1] and mitochondria."""
    box = Box.of_shape(SHAPE, (12, 0, 128))
    drawn = render(PhantomSpec(seed=5, voxel_size_zyx_nm=SIZE_NM), box, want=("image", "mitochondria"))
    return drawn.image_zyx, (drawn.mitochondria_zyx > 0).astype(np.uint8)


def predict(predictor, image_zyx):
    return predictor.predict(image_zyx, (0, 0, 0), ((0, 0, 0), SHAPE), SHAPE, (0, 0, 0), SHAPE)


def test_bfloat16_on_the_gpu_agrees_with_float32_on_the_cpu(tissue):
    image_zyx = (tissue[0] / np.float32(255)).astype(np.float32)
    path = model_path("phantom")
    on_cpu, on_gpu = (predict(BlockPredictor(path, device), image_zyx) for device in ("cpu", "cuda"))
    inside = on_cpu >= 115
    assert 0.02 < inside.mean() < 0.9
    flipped = (inside != (on_gpu >= 115)).mean()
    assert flipped < 0.005
    assert np.abs(on_cpu.astype(int) - on_gpu).mean() < 2.0


def test_the_gpu_gives_the_same_bytes_again(tissue):
    image_zyx = (tissue[0] / np.float32(255)).astype(np.float32)
    predictor = BlockPredictor(model_path("phantom"), "cuda")
    np.testing.assert_array_equal(predict(predictor, image_zyx), predict(predictor, image_zyx))


def test_a_full_device_is_told_as_such(tissue):
    image_zyx = (tissue[0] / np.float32(255)).astype(np.float32)
    predictor = BlockPredictor(model_path("phantom"), "cuda")
    torch.cuda.set_per_process_memory_fraction(1e-4)
    try:
        torch.cuda.empty_cache()
        with pytest.raises(DeviceMemoryError, match="fewer tiles per call"):
            predict(predictor, image_zyx)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.parametrize("compiled", [False, True])
def test_training_learns_in_bfloat16(tissue, tmp_path, compiled):
    image_zyx, labels_zyx = tissue
    volume = TrainingVolume(
        name="phantom", image_zyx=image_zyx, labels_czyx=labels_zyx[None], voxel_size_zyx_nm=SIZE_NM, train=(0, 13)
    )
    stage = {"name": "one", "recipe": "full", "steps": 30, "window_slices": 4, "crop_voxels": 96, "warmup_steps": 2}
    config = TrainingConfig(
        name="gpu",
        device="cuda",
        classes=("mitochondrion",),
        voxel_size_zyx_nm=SIZE_NM,
        base=str(model_path("phantom")),
        dtype="bfloat16",
        compile=compiled,
        tile_voxels=96,
        stages=(stage,),
        tensorboard=False,
    )
    train(config, [volume], tmp_path / "run")
    losses = np.loadtxt(tmp_path / "run" / "log.csv", delimiter=",", skiprows=1, usecols=2)
    assert len(losses) == 30
    assert losses[-8:].mean() < losses[:8].mean()
