from dataclasses import replace

import numpy as np
import pytest
import torch

from sam4em_core.checkpoint import load_checkpoint, load_unet
from sam4em_core.errors import CheckpointError, CoreConfigError
from sam4em_core.official import read_official
from sam4em_core.training import run as run_module
from sam4em_core.training import train
from sam4em_core.training.data import to_working_lattice
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.loop import StageRunner
from sam4em_core.training.settling import patches_of
from sam4em_core.training.starting import start_model, start_network
from sam4em_core.training.state import read_log
from sam4em_core.unet3d import settle

SDF_STAGE = {"window_slices": 8, "crop_voxels": 32}
STILL = {"scale_fraction": 0.0, "elastic_voxels": 0.0}


@pytest.fixture
def make_sdf_config(make_config):
    """A run that trains a U-Net at 16 nm for a few steps."""

    def make(stage=None, unet=None, **changes):
        tiny = {"widths": (8, 8, 8, 8), "tau_nm": 64.0, "patch_zyx": (8, 16, 16), "overlap_zyx": (2, 2, 2)}
        values = {
            "target": "sdf",
            "model": {},
            "unet": {**tiny, **(unet or {})},
            "voxel_size_zyx_nm": (16.0, 16.0, 16.0),
            "augment": STILL,
        }
        return make_config({**SDF_STAGE, **(stage or {})}, **{**values, **changes})

    return make


@pytest.fixture
def make_spatial_config(make_config):
    """A run that trains a network around a U-Net."""

    def make(sdf, stage=None, memory=None, **changes):
        settings = {"reach": 2, "mlp_dim": 16, **(memory or {})}
        model = {**make_config().model, "memory": "sdf", "memory_dim": 16, "sdf_memory": settings}
        return make_config(stage, **{"model": model, "sdf": None if sdf is None else str(sdf), **changes})

    return make


def losses(run_dir):
    return [row["loss"] for row in read_log(run_dir / "log.csv")]


def test_a_unet_is_trained_scored_resumed_and_kept(tmp_path, make_sdf_config, make_volume, monkeypatch):
    config = make_sdf_config({"steps": 5}, checkpoint_every_steps=2)
    best = train(config, [make_volume()], tmp_path / "whole")
    network, header = load_unet(best)
    settled = network.down[0][1].mean.clone()
    assert settled.abs().max() > 1e-3
    settle(network, patches_of([to_working_lattice(make_volume(), (16.0, 16.0, 16.0))], network.config))
    torch.testing.assert_close(network.down[0][1].mean, settled, atol=1e-3, rtol=1e-2)
    assert header.unet.voxel_size_zyx_nm == (16.0, 16.0, 16.0)
    assert 0 <= float(header.card["iou mitochondrion"]) <= 1
    assert (tmp_path / "whole" / "pictures" / "best" / "best.png").is_file()
    step = StageRunner.step

    def step_or_die(self):
        if self.progress.step == 3:
            raise KeyboardInterrupt
        return step(self)

    with monkeypatch.context() as patch:
        patch.setattr(StageRunner, "step", step_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(config, [make_volume()], tmp_path / "cut")
    again = train(config, [make_volume()], tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert again.read_bytes() == best.read_bytes()
    with pytest.raises(CheckpointError, match="U-Net of signed distances alone"):
        load_checkpoint(best)


def test_a_unet_learns(tmp_path, make_sdf_config, make_volume):
    stage = {"steps": 40, "batch_windows": 2, "learning_rate": 1e-2}
    train(make_sdf_config(stage), [make_volume(choose=None)], tmp_path)
    found = [float(loss) for loss in losses(tmp_path)]
    assert sum(found[-5:]) < 0.6 * sum(found[:5])


def test_a_unet_takes_from_its_base_what_both_know(tmp_path, make_sdf_config, make_volume):
    base = train(make_sdf_config({"steps": 2}), [make_volume(choose=None)], tmp_path / "base")
    found = load_unet(base)[0].state_dict()
    changes = {"classes": ("synapse", "mitochondrion"), "base": str(base)}
    torch.manual_seed(3)
    wanted = start_network(make_sdf_config(**changes)).state_dict()
    assert torch.equal(wanted["down.0.0.weight"], found["down.0.0.weight"])
    assert torch.equal(wanted["out.weight"][1], found["out.weight"][0])
    assert not torch.equal(wanted["out.weight"][0], found["out.weight"][0])
    with pytest.raises(TrainingSetupError, match="another architecture: tau_nm"):
        start_network(make_sdf_config(unet={"tau_nm": 96.0}, base=str(base)))


def test_a_network_contains_the_unet_and_leaves_it_as_it_is(
    tmp_path, make_sdf_config, make_spatial_config, make_volume
):
    unet = train(make_sdf_config({"steps": 2}), [make_volume()], tmp_path / "unet")
    config = make_spatial_config(unet, {"steps": 2})
    best = train(config, [make_volume()], tmp_path / "spatial")
    assert len(losses(tmp_path / "spatial")) == 2
    loaded = load_checkpoint(best)
    inside = loaded.network.unet.state_dict()
    for name, tensor in load_unet(unet)[0].state_dict().items():
        assert torch.equal(inside[name], tensor)
    assert loaded.header.model.needs_field
    # Another round: the network goes on, around another U-Net of the same kind.
    other = train(make_sdf_config({"steps": 3}, seed=9), [make_volume()], tmp_path / "other")
    following = start_network(make_spatial_config(other, {"recipe": "full"}, base=str(best)))
    assert not torch.equal(following.unet.out.weight, loaded.network.unet.out.weight)
    assert torch.equal(following.unet.out.weight, load_unet(other)[0].out.weight)
    assert torch.equal(following.sdf_memory.time_rows, loaded.network.sdf_memory.time_rows)
    unet.write_bytes(other.read_bytes())
    with pytest.raises(TrainingSetupError, match=r"the U-Net .* is another file"):
        train(config, [make_volume()], tmp_path / "spatial", resume=True)


def test_a_network_may_start_from_one_with_another_memory(
    tmp_path, make_config, make_sdf_config, make_spatial_config, make_volume
):
    base = train(make_config({"steps": 1}), [make_volume(choose=None)], tmp_path / "base")
    unet = train(make_sdf_config({"steps": 1}), [make_volume(choose=None)], tmp_path / "unet")
    network = start_network(make_spatial_config(unet, {"recipe": "full"}, base=str(base)))
    assert network.encoder_origin == "trained"
    assert torch.equal(network.encoder.fusion.mix[1].weight, load_checkpoint(base).network.encoder.fusion.mix[1].weight)


def test_the_memory_may_come_from_elsewhere(tmp_path, make_config, make_sdf_config, make_spatial_config, make_volume):
    """From a network of another class, whose memory has seen distances, into one that knows the classes."""
    volume = make_volume(choose=None)
    unet = train(make_sdf_config({"steps": 1}), [volume], tmp_path / "unet")
    memory = train(make_spatial_config(unet, {"steps": 1}), [volume], tmp_path / "memory")
    two = ("synapse", "glia")
    both = replace(volume, labels_czyx=np.concatenate([volume.labels_czyx] * 2))
    base = train(make_config({"steps": 1}, classes=two), [both], tmp_path / "base")
    around = train(make_sdf_config({"steps": 1}, classes=two), [both], tmp_path / "around")
    config = make_spatial_config(
        around, {"recipe": "full", "steps": 1}, classes=two, base=str(base), memory_base=str(memory)
    )
    network, known = start_network(config), load_checkpoint(base).network
    remembered = load_checkpoint(memory).network.sdf_memory.state_dict()
    found = network.sdf_memory.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in remembered.items())
    assert torch.equal(found["class_gain"], torch.ones_like(found["class_gain"]))
    assert torch.equal(network.adapter.class_query, known.adapter.class_query)
    assert torch.equal(network.encoder.fusion.mix[1].weight, known.encoder.fusion.mix[1].weight)
    train(config, [both], tmp_path / "run")
    memory.write_bytes(base.read_bytes())
    with pytest.raises(TrainingSetupError, match=r"the memory's base .* is another file"):
        train(config, [both], tmp_path / "run", resume=True)
    with pytest.raises(TrainingSetupError, match=r"memory_base .* has memory: volume"):
        start_network(config)
    with pytest.raises(ValueError, match="memory_base is for"):
        make_config(memory_base=str(memory))


def test_the_memory_may_come_from_official_weights(
    tmp_path, make_config, make_sdf_config, make_volume, official_file, monkeypatch
):
    """Of a network that learnt its classes on the official encoder, and has another memory."""
    path = official_file("sam2.1_hiera_t", tmp_path / "official.pt")
    monkeypatch.setenv("SAM4EM_BASE", str(tmp_path))
    volume = make_volume(choose=None)
    unet = train(make_sdf_config({"steps": 1}), [volume], tmp_path / "unet")
    model = {"backbone": "sam2.1_hiera_t", "memory": "none"}
    base = train(
        make_config({"recipe": "lora-encoder", "steps": 1}, model=model, base=str(path)), [volume], tmp_path / "b"
    )
    around = {"model": {**model, "memory": "sdf"}, "sdf": str(unet), "base": str(base)}
    network = start_network(make_config({"recipe": "full"}, **around, memory_base=str(path)))
    remembered = read_official(path)
    assert torch.equal(network.sdf_memory.time_rows, remembered["maskmem_tpos_enc"])
    assert torch.equal(network.adapter.class_query, load_checkpoint(base, base=path).network.adapter.class_query)


def test_the_chain_of_logits_needs_no_unet(tmp_path, make_spatial_config, make_volume):
    memory = {"source": "logits", "direction": "lower", "injection": "sigmoid"}
    best = train(make_spatial_config(None, {"steps": 1}, memory), [make_volume()], tmp_path)
    assert load_checkpoint(best).network.unet is None


def test_what_does_not_fit_is_refused(tmp_path, make_config, make_sdf_config, make_spatial_config, make_volume):
    with pytest.raises(TrainingSetupError, match="no U-Net is named"):
        start_model(make_spatial_config(None))
    with pytest.raises(TrainingSetupError, match=r"multiples of \(8, 8, 8\)"):
        start_network(make_sdf_config({"window_slices": 6}))
    with pytest.raises(CoreConfigError, match=r"training\.unet: .*tau_nm"):
        start_network(make_sdf_config(unet={"tau_nm": 20.0}))
    with pytest.raises(ValueError, match="scaling and warping change distances"):
        make_sdf_config(augment={})
    with pytest.raises(ValueError, match="same voxel size along y and x"):
        make_sdf_config(voxel_size_zyx_nm=(16.0, 16.0, 20.0))
    with pytest.raises(ValueError, match="use LoRA"):
        make_sdf_config({"recipe": "lora-encoder"})
    with pytest.raises(ValueError, match="target: sdf trains a U-Net"):
        make_sdf_config(model={"d_model": 64})
    with pytest.raises(ValueError, match="unet is for target: sdf"):
        make_config(unet={"tau_nm": 64.0})
    unet = train(make_sdf_config({"steps": 1}), [make_volume(choose=None)], tmp_path / "unet")
    with pytest.raises(TrainingSetupError, match="memory is not sdf"):
        start_model(make_config(sdf=str(unet)))
    with pytest.raises(CoreConfigError, match="no whole number of working voxels"):
        train(make_spatial_config(unet, voxel_size_zyx_nm=(6.0, 6.0, 6.0)), [make_volume()], tmp_path / "odd")
    assert run_module.STATE_FILE not in {path.name for path in (tmp_path / "odd").iterdir()}
