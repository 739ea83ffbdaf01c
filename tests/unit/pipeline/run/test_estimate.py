import numpy as np
import pytest
import zarr

from pipeline.config import RunConfig
from pipeline.config.read import parse_config
from pipeline.run.estimate import count_figures
from pipeline.run.prepare import prepare_run


@pytest.fixture
def figures(tmp_path):
    """Plan a model over an empty volume of 2e9 voxels of 10 nm with the default memory of a task."""
    path = str(tmp_path / "em.zarr")
    zarr.create_array(path, shape=(512, 2048, 2048), dtype=np.uint8, chunks=(64, 256, 256))

    def figures(model):
        values = {
            "image": {"url": path, "voxel_size_zyx_nm": [10, 10, 10]},
            "outputs": [{"url": str(tmp_path / "out.zarr")}],
            "segmenter": {"kind": "sam4em", "model": model},
            "classes": {"mitochondrion": {"method": "watershed"}},
        }
        return count_figures(prepare_run(parse_config(values, RunConfig, "test")))

    return figures


def test_blocks_of_a_model_with_a_unet_fit_the_default_memory_and_are_deep(figures):
    plain, spatial = figures("mito-lucchi"), figures("phantom-spatial")
    assert spatial["predict_block_zyx"][0] > plain["predict_block_zyx"][0]
    assert spatial["model_voxels_per_core_voxel"] < 2 * plain["model_voxels_per_core_voxel"]


def test_what_a_unet_reads_around_a_block_is_counted(figures):
    plain, spatial = figures("mito-lucchi"), figures("phantom-spatial")
    assert spatial["bytes_read"] > 3 * plain["bytes_read"] > 3 * 512 * 2048 * 2048
