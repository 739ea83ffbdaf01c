import pytest
import torch

from sam4em_core.config import ModelConfig
from sam4em_core.header import CheckpointHeader
from sam4em_core.model import build_model
from sam4em_core.unet3d import settle

TINY = {"embed_dim": 8, "d_model": 64, "memory_dim": 16, "memory_slots": 3, "decoder_mlp_dim": 32}

TINY_UNET = {
    "widths": (8, 8, 8, 8),
    "voxel_size_zyx_nm": (16.0, 16.0, 16.0),
    "tau_nm": 64.0,
    "patch_zyx": (8, 16, 16),
    "overlap_zyx": (2, 3, 3),
}


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def official_file():
    """Writes a file of the official layout with random weights, made by the package's own builder."""
    from sam2.build_sam import build_sam2

    def write(name, path):
        torch.manual_seed(3)
        model = build_sam2(f"configs/{name.partition('_')[0]}/{name}.yaml", device="cpu", apply_postprocessing=False)
        torch.save({"model": model.state_dict()}, path)
        return path

    return write


@pytest.fixture
def tiny_config():
    def make(**changes):
        return ModelConfig.of({**TINY, **changes})

    return make


@pytest.fixture
def tiny_network(tiny_config):
    """A network with random but lively weights: its masks differ from slice to slice."""

    def make(seed=7, **changes):
        torch.manual_seed(seed)
        network = build_model(tiny_config(**changes)).eval()
        for name, parameter in network.named_parameters():
            if name.startswith(("memory.", "previous_prompt.", "decoder.head.full")):
                parameter.data.mul_(3.0)
        return network

    return make


@pytest.fixture
def tiny_spatial(tiny_network):
    """A network with SDF memory whose U-Net and memory have random but lively weights."""

    def make(seed=7, classes=1, memory=None, **changes):
        settings = {"reach": 2, "mlp_dim": 32, **(memory or {})}
        unet = None if settings.get("source") == "logits" else {**TINY_UNET, "num_classes": classes}
        network = tiny_network(
            seed, memory="sdf", num_classes=classes, sdf_memory=settings, unet=unet, memory_dim=32, **changes
        )
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith(("sdf_memory.attention", "unet.out", "sdf_memory.time_rows")):
                    parameter.mul_(4.0)
                if name.endswith(".gamma"):
                    parameter.fill_(1.0)
        if network.unet is not None:
            settle(network.unet, torch.rand(4, 1, 1, 16, 16, 16))
        return network

    return make


@pytest.fixture
def tiny_header():
    def make(config, **changes):
        values = {
            "name": "tiny",
            "model": config,
            "classes": tuple(f"class{k}" for k in range(config.num_classes)),
            "thresholds": (0.5,) * config.num_classes,
            "working_voxel_size_zyx_nm": (8.0, 8.0, 8.0),
            "accepted_voxel_size_nm": (4.0, 16.0),
            "window_slices": 5,
            "warm_up_slices": 2,
            "tile_side": 64,
            "tile_overlap": 13,
            "batch_tiles": 3,
        }
        return CheckpointHeader(**{**values, **changes})

    return make
