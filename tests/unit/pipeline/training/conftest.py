"""A stored volume of two classes, and config files that name it."""

import numpy as np
import pytest
import yaml
import zarr

from pipeline.training import TrainingFile

CLASSES = ("glia", "mitochondrion")


@pytest.fixture
def stored(tmp_path):
    rng = np.random.default_rng(0)
    paths = {}
    for name in ("image", "glia", "mito"):
        values = rng.integers(0, 5, (7, 11, 13)).astype(np.uint8)
        zarr.create_array(str(tmp_path / name), data=values, chunks=(7, 11, 13))
        paths[name] = (str(tmp_path / name), values)
    return paths


@pytest.fixture
def section(stored):
    """Make the schema of a volume; keywords change it."""

    def make(**changes):
        values = {
            "name": "v",
            "image": stored["image"][0],
            "labels": {"mitochondrion": stored["mito"][0], "glia": stored["glia"][0]},
            "voxel_size_zyx_nm": [8.0, 5.0, 5.0],
            "train": [0, 5],
        }
        file = {"volumes": [{**values, **changes}], "training": {}}
        return TrainingFile.model_validate(file).volumes[0]

    return make


@pytest.fixture
def write_config(section, tmp_path):
    """Write a config file; keywords are settings of the training."""

    def make(**training):
        stage = {"name": "s", "recipe": "pretrain", "steps": 1}
        file = {
            "volumes": [section().model_dump(mode="json", exclude_none=True)],
            "training": {"name": "t", "classes": list(CLASSES), "stages": [stage], **training},
            "run_dir": str(tmp_path / "run"),
        }
        path = tmp_path / "c.yaml"
        path.write_text(yaml.safe_dump(file))
        return path

    return make
