"""Simulated faults of EM sections: lost, shifted or blurred slices, contrast steps, charging bands.

Suffixes: T slices, C classes, H rows, W columns.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

_LARGEST_SHIFT_VOXELS = 6
_LARGEST_BLUR_VOXELS = 3.0


def apply_faults(
    image_THW: torch.Tensor, labels_CTHW: torch.Tensor, probability: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Give a window each fault with the same probability.

    The truth of a lost slice is kept: the model is to bridge it from its memory. The truth of a shifted
    slice moves with the picture.

    Args:
        image_THW: grey values in [0, 1].
        labels_CTHW: truth, uint8.
        probability: chance of each fault.
        rng: the random stream.
    """
    num_slices = image_THW.shape[0]
    image_THW, labels_CTHW = image_THW.clone(), labels_CTHW.clone()
    if num_slices > 1 and rng.random() < probability:
        image_THW[int(rng.integers(num_slices))] = float(rng.choice([0.0, 0.5, 1.0]))
    if rng.random() < probability:
        shift_slice(image_THW, labels_CTHW, int(rng.integers(num_slices)), rng)
    if rng.random() < probability:
        chosen = int(rng.integers(num_slices))
        sigma = rng.uniform(1.0, _LARGEST_BLUR_VOXELS)
        image_THW[chosen] = blur(image_THW[chosen : chosen + 1], sigma)[0]
    if rng.random() < probability:
        first = int(rng.integers(num_slices))
        image_THW[first:] = image_THW[first:] * float(rng.uniform(0.75, 1.25)) + float(rng.uniform(-0.1, 0.1))
    if rng.random() < probability:
        add_charging_band(image_THW, int(rng.integers(num_slices)), rng)
    return image_THW, labels_CTHW


def hide_slices(image_THW: torch.Tensor, fraction: float, rng: np.random.Generator) -> torch.Tensor:
    """Blank each slice but the first with a chance of its own, in black, grey or white.

    What is in them then only the memory of other slices knows.

    Args:
        image_THW: grey values in [0, 1]; not changed.
        fraction: chance of each slice; 0 draws no random number.
        rng: the random stream.
    """
    if fraction == 0.0:
        return image_THW
    image_THW = image_THW.clone()
    hidden = rng.random(image_THW.shape[0]) < fraction
    greys = rng.choice([0.0, 0.5, 1.0], image_THW.shape[0])
    for index in np.flatnonzero(hidden[1:]) + 1:
        image_THW[index] = float(greys[index])
    return image_THW


def blur(image_THW: torch.Tensor, sigma_voxels: float) -> torch.Tensor:
    """Blur every slice by a Gaussian cut at three standard deviations."""
    radius = max(1, round(3 * sigma_voxels))
    radius = min(radius, image_THW.shape[-1] - 1, image_THW.shape[-2] - 1)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma_voxels) ** 2)
    kernel = kernel / kernel.sum()
    padded = functional.pad(image_THW[:, None], (radius, radius, radius, radius), mode="reflect")
    rows = functional.conv2d(padded, kernel.view(1, 1, -1, 1))
    return functional.conv2d(rows, kernel.view(1, 1, 1, -1))[:, 0]


def shift_slice(image_THW: torch.Tensor, labels_CTHW: torch.Tensor, index: int, rng: np.random.Generator) -> None:
    """Move one slice and its truth sideways, in place; the edge that comes in is wrapped around."""
    rows, columns = (int(v) for v in rng.integers(-_LARGEST_SHIFT_VOXELS, _LARGEST_SHIFT_VOXELS + 1, 2))
    image_THW[index] = image_THW[index].roll((rows, columns), (0, 1))
    labels_CTHW[:, index] = labels_CTHW[:, index].roll((rows, columns), (1, 2))


def add_charging_band(image_THW: torch.Tensor, index: int, rng: np.random.Generator) -> None:
    """Brighten or darken a soft horizontal band of one slice, in place, as charge under the beam does."""
    height = image_THW.shape[1]
    center, width = rng.uniform(0, height), rng.uniform(0.03, 0.15) * height
    rows = torch.arange(height, dtype=torch.float32)
    band = torch.exp(-0.5 * ((rows - float(center)) / float(width)) ** 2)
    image_THW[index] += float(rng.uniform(-0.35, 0.35)) * band[:, None]
