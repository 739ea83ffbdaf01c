"""Single labelled slices as short films: a stack whose slices drift away from the labelled one, truth and all.

A network learns from them to carry a mask where no two neighboring slices are labelled. Every slice of a stack is the
same picture under a warp that grows with the distance from the middle, so objects move, bend and change their size as
they would along z.
Source: Oh et al. 2019, Space-Time Memory Networks, 3.3 (pre-training on images). Suffixes: C classes, H, W the slice.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from sam4em_core.training.data import UNLABELLED, TrainingVolume, VoxelSize

# Largest change over one slice: shift and bend in voxels, turn in degrees, relative growth.
_SHIFT_VOXELS = 1.0
_BEND_VOXELS = 1.5
_TURN_DEGREES = 1.0
_GROWTH = 0.01

_BEND_GRID = 9


def drifting_stack(
    image_yx: npt.NDArray[np.uint8],
    labels_cyx: npt.NDArray[np.uint8],
    *,
    slices: int,
    name: str,
    voxel_size_zyx_nm: VoxelSize,
    rng: np.random.Generator,
) -> TrainingVolume:
    """Make a stack out of one labelled slice; the slice itself is the first.

    Args:
        image_yx: grey values.
        labels_cyx: truth: 0, 1, or 255.
        slices: of the stack.
        name: of the stack.
        voxel_size_zyx_nm: of the slice.
        rng: the random stream.
    """
    height, width = image_yx.shape
    step = _Drift(rng, height, width)
    images, labels = [], []
    for index in range(slices):
        grid = step.grid(index)
        image = torch.from_numpy(image_yx.astype(np.float32))[None, None]
        moved = functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)
        images.append(moved[0, 0].round().clamp(0, 255).to(torch.uint8).numpy())
        labels.append(_moved_labels(torch.from_numpy(labels_cyx), grid).numpy())
    return TrainingVolume(
        name,
        np.stack(images),
        np.stack(labels, axis=1),
        voxel_size_zyx_nm,
        train=(0, slices),
        grey_range=(0.0, 255.0),
    )


class _Drift:
    """A constant motion, drawn once per stack."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self._size = (height, width)
        self._shift = rng.uniform(-_SHIFT_VOXELS, _SHIFT_VOXELS, 2)
        self._turn = math.radians(rng.uniform(-_TURN_DEGREES, _TURN_DEGREES))
        self._growth = rng.uniform(-_GROWTH, _GROWTH)
        bend = rng.uniform(-1.0, 1.0, (1, 2, _BEND_GRID, _BEND_GRID)).astype(np.float32) * _BEND_VOXELS
        self._bend = functional.interpolate(torch.from_numpy(bend), self._size, mode="bicubic", align_corners=True)[0]

    def grid(self, index: int) -> torch.Tensor:
        """Give where each voxel of slice `index` comes from: (1, H, W, 2) in xy order, [-1, 1]."""
        height, width = self._size
        rows, columns = torch.meshgrid(
            torch.arange(height, dtype=torch.float32) - (height - 1) / 2,
            torch.arange(width, dtype=torch.float32) - (width - 1) / 2,
            indexing="ij",
        )
        scale = (1.0 + self._growth) ** index
        cosine, sine = math.cos(self._turn * index) * scale, math.sin(self._turn * index) * scale
        x = cosine * columns - sine * rows + index * (float(self._shift[0]) + self._bend[0])
        y = sine * columns + cosine * rows + index * (float(self._shift[1]) + self._bend[1])
        return torch.stack([x / (width / 2), y / (height / 2)], dim=-1)[None]


def _moved_labels(labels_CHW: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample truth; what comes from outside is unlabelled."""
    inside = functional.grid_sample((labels_CHW == 1).float()[None], grid, align_corners=False)[0]
    known = functional.grid_sample((labels_CHW != UNLABELLED).float()[None], grid, align_corners=False)[0]
    moved = (inside >= 0.5 * known.clamp(min=1e-6)).to(torch.uint8)
    moved[known < 0.5] = UNLABELLED
    return moved
