import numpy as np
import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import build_model
from sam4em_core.training import validate
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.validate import choose_region, predict_region, score_regions, source_slices


@pytest.fixture
def header(make_config):
    config = make_config()
    return CheckpointHeader(
        model=ModelConfig.of(config.model),
        classes=config.classes,
        thresholds=(0.5,),
        working_voxel_size_zyx_nm=config.voxel_size_zyx_nm,
        accepted_voxel_size_nm=config.voxel_size_range_nm,
        tile_side=64,
        tile_overlap=8,
        window_slices=3,
        warm_up_slices=1,
    )


def echo_block(network, header, block, *, flips):
    """Stands for a perfect model: the image is its own probability."""
    below = -block.image_start[0]
    core = block.image_zyx[below : below + block.core_stop[0]]
    return np.rint(core * 255).astype(np.uint8)[None]


def test_region_on_the_working_lattice(make_volume, make_config):
    config = make_config(voxel_size_zyx_nm=[10.0, 10.0, 10.0])
    region = choose_region(make_volume(voxel_size_zyx_nm=(5.0, 5.0, 5.0), train=(0, 9), choose=(11, 19)), config)
    assert region.num_slices == 3
    assert region.context_below == 4
    assert region.image_zyx.shape == (7, 26, 30)
    assert region.truth_czyx.shape == (1, 6, 53, 61)
    assert region.lead_z_nm == 0.0


def test_source_slices_have_their_center_inside():
    assert source_slices(75, 85, 8.0, 5.0, (120, 136)) == (120, 136)
    assert source_slices(1, 3, 8.0, 5.0, (0, 99)) == (2, 5)


def test_an_image_that_is_its_truth_scores_one(make_volume, make_config, header, monkeypatch):
    monkeypatch.setattr(validate, "predict_block", echo_block)
    labels = make_volume().labels_czyx
    volume = make_volume(image_zyx=labels[0] * np.uint8(200), grey_range=(0.0, 200.0))
    scores = score_regions(torch.nn.Identity(), header, [choose_region(volume, make_config())], (0.3, 0.5))
    assert scores["mitochondrion"].iou == 1.0
    assert scores["mitochondrion"].threshold == 0.5


def test_back_on_the_source_lattice_borders_stay_in_place(make_volume, make_config, header, monkeypatch):
    monkeypatch.setattr(validate, "predict_block", echo_block)
    labels = np.zeros((1, 40, 60, 60), np.uint8)
    labels[0, 9:31, 15:45, 20:50] = 1
    volume = make_volume(
        image_zyx=labels[0] * np.uint8(200),
        labels_czyx=labels,
        voxel_size_zyx_nm=(5.0, 5.0, 5.0),
        grey_range=(0.0, 200.0),
        train=(0, 3),
        choose=(3, 40),
    )
    region = choose_region(volume, make_config(voxel_size_zyx_nm=[10.0, 10.0, 10.0]))
    scores = score_regions(torch.nn.Identity(), header, [region], (0.5,))
    assert scores["mitochondrion"].iou > 0.93


def test_the_real_chain_gives_probabilities_and_the_mode_back(make_volume, make_config, header):
    torch.manual_seed(0)
    network = build_model(header.model).train()
    region = choose_region(make_volume(), make_config())
    probability = predict_region(network, header, region)
    assert probability.shape == (1, 5, 53, 61)
    assert 0.0 <= float(probability.min()) <= float(probability.max()) <= 1.0
    assert network.training


def test_refuses_a_volume_that_cannot_choose(make_volume, make_config):
    with pytest.raises(TrainingSetupError, match="no choose range"):
        choose_region(make_volume(choose=None), make_config())
    with pytest.raises(TrainingSetupError, match="no whole slice"):
        choose_region(make_volume(choose=(14, 15)), make_config(voxel_size_zyx_nm=[20.0, 8.0, 8.0]))


def test_a_window_that_begins_earlier_still_scores_the_choose_slices(make_volume, make_config, header, monkeypatch):
    cores = []

    def remember(network, header, block, *, flips):
        cores.append((block.image_start[0], block.core_start[0], block.core_stop[0], block.domain_shape[0]))
        below = block.core_start[0] - block.image_start[0]
        core = block.image_zyx[below : below + block.core_stop[0] - block.core_start[0]]
        return np.rint(core * 255).astype(np.uint8)[None]

    monkeypatch.setattr(validate, "predict_block", remember)
    labels = make_volume().labels_czyx
    volume = make_volume(image_zyx=labels[0] * np.uint8(200), grey_range=(0.0, 200.0))
    region = choose_region(volume, make_config())
    scores = score_regions(torch.nn.Identity(), header, [region], (0.5,), (0, 3))
    assert scores["mitochondrion"].iou == 1.0
    assert cores == [
        (-4, 0, region.num_slices, region.num_slices),
        (-1, 3, region.num_slices + 3, region.num_slices + 3),
    ]


def test_refuses_windows_that_begin_before_the_volume(make_volume, make_config):
    config = make_config(validation={"context_slices": 16, "window_offsets": [0, 16]})
    with pytest.raises(TrainingSetupError, match="window_offsets"):
        choose_region(make_volume(), config)


def test_a_unet_is_scored_with_more_image_around(make_volume, make_config):
    shape = (160, 32, 32)
    deep = make_volume(
        image_zyx=np.zeros(shape, np.uint8),
        labels_czyx=np.ones((1, *shape), np.uint8),
        train=(0, 20),
        choose=(140, 144),
    )

    def slices(**changes):
        return choose_region(deep, make_config(**changes)).context_below

    assert slices() == 4
    assert slices(validation={"context_slices": 7}) == 7
    assert slices(target="sdf", model={}, augment={"scale_fraction": 0.0, "elastic_voxels": 0.0}) == 128
