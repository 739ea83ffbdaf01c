"""A model with a U-Net inside through the whole pipeline: nothing depends on blocks, order or workers."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.geometry import Box
from pipeline.run.launch import run_config
from pipeline.run.prepare import prepare_run
from pipeline.segmenter import load_segmenter
from pipeline.stages import predict
from pipeline.stages.context import TaskContext
from pipeline.storage import StorageOptions, open_volume
from pipeline.telemetry import SilentReporter
from sam4em_core.checkpoint import save_checkpoint
from sam4em_core.config import ModelConfig
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import build_model
from sam4em_core.unet3d import settle

SHAPE = (11, 40, 70)
NM = [8.0, 8.0, 8.0]
UNET = {"widths": (8, 8, 8, 8), "voxel_size_zyx_nm": (16.0, 16.0, 16.0), "tau_nm": 64.0}
UNET |= {"patch_zyx": (8, 16, 16), "overlap_zyx": (2, 3, 3)}
SMALL = {"embed_dim": 8, "d_model": 64, "memory_dim": 32, "decoder_mlp_dim": 32, "memory": "sdf"}
ROWS = {
    "logits one way": {"source": "logits", "direction": "lower", "injection": "sigmoid"},
    "sdf one way": {"direction": "lower"},
    "sdf both ways with own slice": {"include_own": True},
    "sdf both ways": {},
}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    noise = ndimage.gaussian_filter(np.random.default_rng(7).normal(size=SHAPE), (1.5, 3, 3))
    grey = np.clip(128 + 60 * noise / noise.std(), 1, 254).astype(np.uint8)
    path = tmp_path_factory.mktemp("image") / "em.zarr"
    zarr.create_array(str(path), shape=SHAPE, chunks=(16, 32, 32), dtype="uint8")[:] = grey
    return path


@pytest.fixture(scope="module")
def model(image, tmp_path_factory):
    """Give the path of a model with random but lively weights, settled on the image, per row of the ablation."""

    def make(row="sdf both ways"):
        torch.manual_seed(7)
        memory = {"reach": 2, "mlp_dim": 32, **ROWS[row]}
        config = ModelConfig.of({**SMALL, "sdf_memory": memory, "unet": None if "source" in memory else UNET})
        network = build_model(config).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith(("sdf_memory.attention", "unet.out", "sdf_memory.time_rows", "decoder.head.full")):
                    parameter.mul_(4.0)
                if name.endswith(".gamma"):
                    parameter.fill_(1.0)
        if network.unet is not None:
            patch = torch.from_numpy(zarr.open_array(str(image))[:8, :16, :16] / np.float32(255))
            settle(network.unet, [patch[None, None]])
        header = CheckpointHeader(
            name=row.replace(" ", "-"),
            model=config,
            classes=("mito",),
            thresholds=(0.5,),
            working_voxel_size_zyx_nm=(8.0, 8.0, 8.0),
            accepted_voxel_size_nm=(4.0, 16.0),
            window_slices=4,
            warm_up_slices=2,
            tile_side=64,
            tile_overlap=13,
        )
        path = tmp_path_factory.mktemp("model") / "model.safetensors"
        save_checkpoint(path, network, header)
        return path

    return make


@pytest.fixture
def make_config(image, tmp_path):
    def make(name, checkpoint, *, workers=1, block=(4, 64, 51), row="sdf both ways"):
        has_sdf = not row.startswith("logits")
        rule = {"method": "watershed", "watershed_on": "sdf", "seed_spacing_nm": 32.0} if has_sdf else {}
        values = {
            "image": {"url": str(image), "voxel_size_zyx_nm": NM},
            "outputs": [{"url": str(tmp_path / f"{name}.zarr"), "chunk_zyx": [8, 32, 32], "num_mips": 2}],
            "segmenter": {"kind": "sam4em", "model": str(checkpoint), "device": "cpu"},
            "classes": {"mito": rule},
            "predictions": {"probabilities": True, "distances": has_sdf},
            "plan": {"block_zyx": [8, 32, 64], "predict_block_zyx": list(block)},
            "cluster": {"workers": workers},
        }
        return parse_config(values, RunConfig, "test")

    return make


def digests(config):
    """Digest of the labels and of every prediction that was kept."""
    output = Path(config.outputs[0].url)
    folders = [output, *sorted(Path(f"{output}.predictions").iterdir())]
    found = {}
    for folder in folders:
        volume = open_volume(str(folder), kind="labels" if folder == output else "image")
        voxels = volume.read(Box.of_shape(volume.info.shape))
        found[folder.name.removeprefix(output.name)] = hashlib.sha256(voxels.tobytes()).hexdigest()
        assert len(np.unique(voxels)) > 1, folder
    return list(found.values())


def predicted(config, seed):
    """Carry out the predict stage alone, in a shuffled order; give what it wrote."""
    prepared = prepare_run(config)
    segmenter = load_segmenter(config.segmenter, prepared.plan.source_voxel_size_nm)
    context = TaskContext(prepared.plan, options=StorageOptions(), demand=prepared.demand, segmenter=segmenter)
    context.create()
    indices = list(predict.tasks(prepared.plan))
    for index in random.Random(seed).sample(indices, len(indices)):
        predict.run(index, prepared.plan, context)
    return context.probabilities.read(prepared.plan.working_domain), len(indices)


@pytest.mark.parametrize("row", ROWS)
def test_every_memory_row_runs_and_neither_order_nor_blocks_matter(make_config, model, row):
    checkpoint = model(row)
    in_blocks, num_blocks = predicted(make_config("blocks", checkpoint, row=row), seed=1)
    whole, one_block = predicted(make_config("whole", checkpoint, block=(12, 64, 128), row=row), seed=2)
    assert (num_blocks, one_block) == (6, 1)
    assert len(np.unique(whole)) > 10
    assert np.array_equal(in_blocks, whole)


def test_one_and_two_workers_give_equal_digests(make_config, model):
    checkpoint = model()
    configs = [make_config(f"workers-{workers}", checkpoint, workers=workers) for workers in (1, 2)]
    for config in configs:
        assert run_config(config, reporter=SilentReporter()).status == "complete"
    assert digests(configs[0]) == digests(configs[1])
