import math

import numpy as np
import torch

from sam4em_core.config import UnetConfig
from sam4em_core.patches import patch_grid
from sam4em_core.training.data import WorkingVolume
from sam4em_core.training.settling import patches_of

CONFIG = UnetConfig(patch_zyx=(8, 16, 16), overlap_zyx=(2, 2, 2))


def volume(shape, value=None):
    rng = np.random.default_rng(math.prod(shape))
    image = rng.integers(0, 255, shape).astype(np.uint8) if value is None else np.full(shape, value, np.uint8)
    return WorkingVolume("v", image, np.zeros((1, *shape), np.uint8), 0)


def test_a_small_volume_gives_every_patch_of_a_segmentation():
    one = volume((12, 20, 30))
    grid = patch_grid(CONFIG, (1, 1, 1), ((0, 0, 0), one.image_zyx.shape))
    found = list(patches_of([one], CONFIG))
    assert len(found) == math.prod(axis.count for axis in grid.axes) > 1
    last = tuple(axis.count - 1 for axis in grid.axes)
    expected = one.image_zyx[np.ix_(*grid.reads(last))] / 255
    assert np.allclose(found[-1][0, 0], expected)
    assert found[0].dtype == torch.float32


def test_many_patches_are_thinned_evenly_over_all_volumes():
    volumes = [volume((8, 16, 16), value=0), volume((64, 64, 64), value=100), volume((40, 64, 64), value=200)]
    found = [round(float(patch.mean()) * 255) for patch in patches_of(volumes, CONFIG)]
    assert len(found) == 16
    assert found == sorted(found)
    assert (found.count(100), found.count(200)) == (10, 6)
