"""The whole suite: a small network around a U-Net, and settings of property tests.

They have no deadline, since a busy machine is no counterexample.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "sam4em",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("sam4em")


@pytest.fixture
def small_spatial():
    """Make a small network around a U-Net, with random weights, and its header."""

    def make(seed=5, tau_nm=96.0):
        import torch

        from sam4em_core.config import ModelConfig
        from sam4em_core.header import CheckpointHeader
        from sam4em_core.model import build_model

        torch.manual_seed(seed)
        unet = {"widths": (8, 8, 8, 8), "voxel_size_zyx_nm": (16.0, 16.0, 16.0), "tau_nm": tau_nm}
        unet |= {"patch_zyx": (8, 8, 8), "overlap_zyx": (2, 2, 2)}
        memory = {"memory": "sdf", "memory_dim": 16, "sdf_memory": {"reach": 2, "mlp_dim": 32}}
        model = ModelConfig.of({"embed_dim": 8, "d_model": 64, "decoder_mlp_dim": 32, **memory, "unet": unet})
        header = CheckpointHeader(
            name="spatial",
            model=model,
            classes=("mito",),
            thresholds=(0.5,),
            working_voxel_size_zyx_nm=(8.0, 8.0, 8.0),
            accepted_voxel_size_nm=(4.0, 16.0),
            window_slices=5,
            tile_side=32,
            tile_overlap=5,
        )
        return build_model(model), header

    return make
