import subprocess
import sys

import pytest

from sam4em_core.config import ModelConfig, SdfMemoryConfig
from sam4em_core.errors import CoreConfigError


def test_importing_the_torch_free_modules_imports_no_torch():
    code = (
        "import sys, sam4em_core, sam4em_core.config, sam4em_core.header, sam4em_core.tiles, sam4em_core.checkpoint;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sam2', 'peft')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_workers_never_import_peft():
    code = "import sys, sam4em_core.segmenter, sam4em_core.official; sys.exit('peft' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"bakbone": "small"}, "bakbone"),
        ({"backbone": "sam3_hiera_t"}, "sam2.1_hiera_t"),
        ({"backbone": "sam2_hiera_s", "d_model": 128}, "256"),
        ({"d_model": 96}, "d_model: .*multiple of 64"),
        ({"num_classes": 0}, "num_classes"),
        ({"memory": "sometimes"}, "memory"),
        ({"memory_heads": 3}, "memory_heads"),
        ({"decoder_heads": 3}, "decoder_heads"),
        ({"global_blocks": (3,)}, "first block of a stage"),
        ({"memory": "sdf"}, "needs the U-Net"),
        ({"unet": {}}, "no use for signed distances"),
        ({"memory": "sdf", "unet": {"num_classes": 2}}, "2 classes"),
        ({"memory": "sdf", "unet": {"patch_zyx": (20, 96, 96)}}, "multiple of"),
        ({"memory": "sdf", "unet": {"overlap_zyx": (40, 12, 12)}}, "half of patch_zyx"),
        ({"memory": "sdf", "unet": {"tau_nm": 30.0}}, "two voxels"),
        ({"memory": "sdf", "unet": {"widths": (8, 12, 16, 24)}}, "widths"),
        ({"memory": "sdf", "sdf_memory": {"source": "logits"}}, "goes one way"),
    ],
)
def test_unusable_settings_are_named(values, named):
    with pytest.raises(CoreConfigError, match=named):
        ModelConfig.of(values)


@pytest.mark.parametrize(
    ("memory", "offsets"),
    [
        ({}, (-3, -2, -1, 1, 2, 3)),
        ({"include_own": True}, (-3, -2, -1, 0, 1, 2, 3)),
        ({"direction": "lower"}, (-3, -2, -1)),
        ({"stride": 4}, (-12, -8, -4, 4, 8, 12)),
    ],
)
def test_a_slice_looks_at_its_neighbors_and_not_at_itself(memory, offsets):
    config = SdfMemoryConfig(reach=3, **memory)
    assert config.offsets() == offsets
    assert config.reach_slices == max(-offsets[0], offsets[-1])


def test_an_official_backbone_brings_the_size_of_sam2s_memory():
    config = ModelConfig.official("sam2.1_hiera_t", memory="sdf", unet={}, sdf_memory={"stride": 2})
    assert (config.sdf_memory.layers, config.sdf_memory.mlp_dim, config.sdf_memory.stride) == (4, 2048, 2)
    assert config.needs_field
    assert config.needs_square


def test_official_settings_fit_the_official_decoder():
    config = ModelConfig.official("sam2.1_hiera_b+", num_classes=3)
    assert (config.d_model, config.decoder_heads, config.decoder_mlp_dim, config.num_classes) == (256, 8, 2048, 3)
