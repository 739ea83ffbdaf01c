"""The patches that settle a U-Net's norms: of the volumes that train, cut as a segmentation cuts them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from sam4em_core.patches import patch_grid
from sam4em_core.training.data import grey_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sam4em_core.config import UnetConfig
    from sam4em_core.training.data import WorkingVolume

_MAX_PATCHES = 16
"""Every channel of the finest level sees some millions of voxels then."""


def patches_of(volumes: Sequence[WorkingVolume], config: UnetConfig) -> Iterator[torch.Tensor]:
    """Give up to 16 patches, evenly spread over all volumes, each (1, 1, z, y, x) with grey values in [0, 1].

    Args:
        volumes: on the U-Net's lattice.
        config: how patches are cut.
    """
    grids = [patch_grid(config, (1, 1, 1), ((0, 0, 0), _shape(volume))) for volume in volumes]
    counts = [tuple(axis.count for axis in grid.axes) for grid in grids]
    ends = np.cumsum([math.prod(count) for count in counts])
    shown = min(int(ends[-1]), _MAX_PATCHES)
    for number in ((2 * index + 1) * int(ends[-1]) // (2 * shown) for index in range(shown)):
        place = int(np.searchsorted(ends, number, side="right"))
        within = number - (int(ends[place - 1]) if place else 0)
        z, y, x = (int(part) for part in np.unravel_index(within, counts[place]))
        image_zyx = volumes[place].image_zyx[np.ix_(*grids[place].reads((z, y, x)))]
        yield torch.from_numpy(grey_of(image_zyx))[None, None]


def _shape(volume: WorkingVolume) -> tuple[int, int, int]:
    z, y, x = volume.image_zyx.shape
    return z, y, x
