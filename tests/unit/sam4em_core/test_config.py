import subprocess
import sys

import pytest

from sam4em_core.config import ModelConfig
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
        ({"num_classes": 0}, "num_classes"),
        ({"memory": "sometimes"}, "memory"),
        ({"memory_heads": 3}, "memory_heads"),
        ({"decoder_heads": 3}, "decoder_heads"),
        ({"global_blocks": (3,)}, "first block of a stage"),
    ],
)
def test_unusable_settings_are_named(values, named):
    with pytest.raises(CoreConfigError, match=named):
        ModelConfig.of(values)


def test_official_settings_fit_the_official_decoder():
    config = ModelConfig.official("sam2.1_hiera_b+", num_classes=3)
    assert (config.d_model, config.decoder_heads, config.decoder_mlp_dim, config.num_classes) == (256, 8, 2048, 3)
