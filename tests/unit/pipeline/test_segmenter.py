import numpy as np
import pytest
from scipy import ndimage

from pipeline.config.schema import Sam4emSegmenter, ThresholdSegmenter
from pipeline.errors import WeightsError
from pipeline.geometry import Box
from pipeline.segmenter import core_errors, count_gpus, describe_segmenter, load_segmenter, model_path

VOXEL_NM = (8.0, 8.0, 8.0)
DOMAIN = Box.of_shape((17, 23, 29))
IMAGE = np.random.default_rng(7).integers(0, 256, DOMAIN.shape, np.uint8)


def predict(config, core, bounds=DOMAIN, image=IMAGE):
    demand = describe_segmenter(config, VOXEL_NM)
    box = demand.context(core, bounds, bounds)
    return load_segmenter(config, VOXEL_NM).predict(image[box.slices], box, core, bounds, bounds)[0]


def test_dark_and_bright_are_opposite():
    core = Box((2, 3, 5), (7, 11, 13))
    bright = predict(ThresholdSegmenter(kind="threshold", foreground="bright"), core)
    dark = predict(ThresholdSegmenter(kind="threshold", foreground="dark"), core)
    np.testing.assert_array_equal(bright, IMAGE[core.slices])
    np.testing.assert_array_equal(dark, 255 - IMAGE[core.slices])


def test_sixteen_bits_keep_the_upper_eight():
    image = IMAGE.astype(np.uint16) * 256 + 17
    config = ThresholdSegmenter(kind="threshold", foreground="bright")
    np.testing.assert_array_equal(predict(config, DOMAIN, image=image), IMAGE)


def test_a_smoothed_block_has_the_bytes_of_the_smoothed_volume():
    config = ThresholdSegmenter(kind="threshold", foreground="bright", smoothing_nm=12.0)
    whole = predict(config, DOMAIN)
    expected = ndimage.gaussian_filter(IMAGE.astype(float), 1.5, mode="nearest", radius=6)
    assert np.abs(whole - expected).max() <= 0.51
    for core in (Box((0, 0, 0), (5, 7, 11)), Box((5, 7, 11), (17, 23, 29)), Box((6, 9, 12), (7, 10, 13))):
        np.testing.assert_array_equal(predict(config, core), whole[core.slices])


def test_a_model_that_is_not_there_names_the_shipped_ones(tmp_path):
    with pytest.raises(WeightsError, match="shipped models"):
        model_path("no-such-model")
    with pytest.raises(WeightsError, match="no-such-model"):
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model="no-such-model"), VOXEL_NM)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(WeightsError, match=r"broken\.safetensors"):
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model=str(path)), VOXEL_NM)


def test_every_error_of_the_core_has_a_family():
    from sam4em_core import errors as core

    classes = [item for item in vars(core).values() if isinstance(item, type) and issubclass(item, core.CoreError)]
    assert len(classes) > 5
    for item in classes:
        with pytest.raises(Exception, match="loading: broken") as caught, core_errors("loading"):
            raise item("broken")
        assert caught.value.__cause__.__class__ is item
        assert type(caught.value).__module__ == "pipeline.errors"


def spatial_checkpoint(folder):
    """A small network around a U-Net, with random weights."""
    import torch

    from sam4em_core.checkpoint import save_checkpoint
    from sam4em_core.config import ModelConfig
    from sam4em_core.header import CheckpointHeader
    from sam4em_core.model import build_model

    torch.manual_seed(5)
    model = ModelConfig.of(
        {
            "embed_dim": 8,
            "d_model": 64,
            "decoder_mlp_dim": 32,
            "memory": "sdf",
            "memory_dim": 16,
            "sdf_memory": {"reach": 2, "mlp_dim": 32},
            "unet": {
                "widths": (8, 8, 8, 8),
                "voxel_size_zyx_nm": (16.0, 16.0, 16.0),
                "tau_nm": 96.0,
                "patch_zyx": (8, 8, 8),
                "overlap_zyx": (2, 2, 2),
            },
        }
    )
    header = CheckpointHeader(
        name="spatial",
        model=model,
        classes=("mito",),
        thresholds=(0.5,),
        working_voxel_size_zyx_nm=VOXEL_NM,
        accepted_voxel_size_nm=(4.0, 16.0),
        window_slices=5,
        tile_side=32,
        tile_overlap=5,
    )
    save_checkpoint(folder / "spatial.safetensors", build_model(model), header)
    return Sam4emSegmenter(kind="sam4em", model=str(folder / "spatial.safetensors"), device="cpu")


def test_a_spatial_model_runs_both_networks_and_gives_its_distances_behind_the_classes(tmp_path):
    config = spatial_checkpoint(tmp_path)
    demand = describe_segmenter(config, VOXEL_NM)
    assert demand.sdf_tau_nm == 96.0
    assert demand.class_names == ("mito",)
    domain = Box.of_shape((9, 33, 37))
    core = Box((4, 0, 0), (6, 33, 37))
    box = demand.context(core, domain, domain)
    assert box.contains(Box((2, 0, 0), (8, 33, 37)))
    image = np.random.default_rng(1).random(domain.shape, dtype=np.float32)
    segmenter = load_segmenter(config, VOXEL_NM)
    part = segmenter.predict(image[box.slices], box, core, domain, domain)
    assert part.shape == (2, 2, 33, 37)
    whole = segmenter.predict(image, domain, domain, domain, domain)
    np.testing.assert_array_equal(part, whole[(slice(None), *core.slices)])
    host, device = demand.projected_bytes(core.shape, domain.shape)
    assert host > 0
    assert device > 8e6
    assert demand.model_voxels(core, domain, domain) >= core.num_voxels


def test_gpus_are_counted_as_torch_counts_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    assert count_gpus() == 3


def test_flips_are_four_times_the_work():
    plain, flipped = (
        describe_segmenter(Sam4emSegmenter(kind="sam4em", model="phantom", test_time_flips=flips), VOXEL_NM)
        for flips in (False, True)
    )
    assert flipped.model_voxels(DOMAIN, DOMAIN, DOMAIN) == 4 * plain.model_voxels(DOMAIN, DOMAIN, DOMAIN)
    assert flipped.identity.config_digest != plain.identity.config_digest
