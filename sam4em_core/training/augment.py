"""Variation of a window: one geometry for all its slices, grey values, and simulated faults of EM.

Suffixes: T slices, C classes, H rows, W columns.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from sam4em_core.training.faults import apply_faults, blur, hide_slices
from sam4em_core.training.fields import UNKNOWN

if TYPE_CHECKING:
    import numpy.typing as npt

    from sam4em_core.training.config import AugmentConfig
    from sam4em_core.training.sampler import Window

_KNOWN = 0.999
"""Share of known neighbors from which an interpolated distance is known; weights round in float32."""
_ELASTIC_GRID = 5
"""Control points per axis of the smooth warp."""


def margin_voxels(config: AugmentConfig, crop_voxels: int) -> int:
    """Give the extra voxels per side that keep a turned and scaled crop inside its window.

    Half a diagonal covers every rotation; what the largest scale adds may fall on the reflected border.
    """
    if not config.geometric:
        return 0
    turn = min(config.rotation_degrees, 45.0)
    reach = math.cos(math.radians(turn)) + math.sin(math.radians(turn))
    return math.ceil(crop_voxels * (reach * (1.0 + config.scale_fraction / 2) - 1.0) / 2 + config.elastic_voxels)


def augment_window(
    window: Window, config: AugmentConfig, rng: np.random.Generator, crop_voxels: int, unlabelled: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vary one window and cut it to the crop: image and labels alone, see `augment_with_field`."""
    image_THW, labels_TCHW, _ = augment_with_field(window, config, rng, crop_voxels, unlabelled)
    return image_THW, labels_TCHW


def augment_with_field(
    window: Window, config: AugmentConfig, rng: np.random.Generator, crop_voxels: int, unlabelled: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Vary one window and cut it to the crop.

    Signed distances move with the picture; their values stay, which is right for turns and flips alone.

    Args:
        window: grey values and labels with the margin around the crop.
        config: what is varied and how far.
        rng: the random stream.
        crop_voxels: side of the result.
        unlabelled: label of voxels whose truth is unknown.

    Returns:
        Image (T, H, W), float32 in [0, 1]; labels (T, C, H, W), uint8; and, where the window has them, signed
        distances (T, C, H, W), as bytes.
    """
    image_THW = torch.from_numpy(np.ascontiguousarray(window.image_zyx))
    labels_CTHW = torch.from_numpy(np.ascontiguousarray(window.labels_czyx))
    num_classes = len(labels_CTHW)
    field_CTHW = labels_CTHW[:0]
    if window.field_czyx is not None:
        field_CTHW = torch.from_numpy(np.ascontiguousarray(window.field_czyx))
    if config.geometric:
        grid = _sampling_grid(config, rng, crop_voxels, image_THW.shape[-1])
        image_THW, labels_CTHW = _warp(image_THW, labels_CTHW, grid, unlabelled)
        field_CTHW = _warped_field(field_CTHW, grid)
    # From here on the distances move with the labels.
    labels_CTHW = torch.cat((labels_CTHW, field_CTHW))
    if rng.random() < config.reverse_probability:
        image_THW, labels_CTHW = image_THW.flip(0), labels_CTHW.flip(1)
    image_THW = _vary_grey(image_THW, config, rng)
    image_THW, labels_CTHW = apply_faults(image_THW, labels_CTHW, config.fault_probability, rng)
    image_THW = hide_slices(image_THW, config.hidden_fraction, rng)
    labels_TCHW = labels_CTHW[:num_classes].transpose(0, 1).contiguous()
    field_TCHW = labels_CTHW[num_classes:].transpose(0, 1).contiguous() if len(field_CTHW) else None
    return image_THW.clamp(0.0, 1.0), labels_TCHW, field_TCHW


def _warped_field(field_CTHW: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample bytes of signed distances; what reads an unknown one is unknown."""
    if not len(field_CTHW):
        return field_CTHW.new_zeros(0, field_CTHW.shape[1], *grid.shape[1:3])
    flat = field_CTHW.flatten(0, 1)
    values = functional.grid_sample(flat.float()[None], grid, align_corners=False)[0]
    known = functional.grid_sample((flat != UNKNOWN).float()[None], grid, align_corners=False)[0]
    return values.round().masked_fill(known < _KNOWN, UNKNOWN).to(torch.uint8).unflatten(0, field_CTHW.shape[:2])


def _sampling_grid(
    config: AugmentConfig, rng: np.random.Generator, crop_voxels: int, source_voxels: int
) -> torch.Tensor:
    """Draw where each voxel of the crop comes from: (1, H, W, 2) in xy order, [-1, 1] over the source."""
    angle = math.radians(rng.uniform(-config.rotation_degrees, config.rotation_degrees))
    angle += math.pi / 2 * int(rng.integers(4))
    scale = rng.uniform(1.0 - config.scale_fraction, 1.0 + config.scale_fraction)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    axis = torch.arange(crop_voxels, dtype=torch.float32) - (crop_voxels - 1) / 2
    rows, columns = torch.meshgrid(axis, axis * flip, indexing="ij")
    cosine, sine = math.cos(angle) * scale, math.sin(angle) * scale
    offsets = torch.stack([cosine * columns - sine * rows, sine * columns + cosine * rows])
    if config.elastic_voxels > 0:
        shape = (2, _ELASTIC_GRID, _ELASTIC_GRID)
        bumps = torch.from_numpy(rng.uniform(-1.0, 1.0, shape).astype(np.float32)) * config.elastic_voxels
        size = (crop_voxels, crop_voxels)
        offsets = offsets + functional.interpolate(bumps[None], size, mode="bicubic", align_corners=True)[0]
    return (offsets / (source_voxels / 2)).permute(1, 2, 0)[None]


def _warp(
    image_THW: torch.Tensor, labels_CTHW: torch.Tensor, grid: torch.Tensor, unlabelled: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample image and truth by one grid; a label needs half of its neighborhood, as in resampling."""
    image = functional.grid_sample(image_THW[None], grid, padding_mode="reflection", align_corners=False)[0]
    flat = labels_CTHW.flatten(0, 1)
    inside = functional.grid_sample((flat == 1).float()[None], grid, align_corners=False)[0]
    known = functional.grid_sample((flat != unlabelled).float()[None], grid, align_corners=False)[0]
    labels = (inside >= 0.5 * known.clamp(min=1e-6)).to(torch.uint8)
    labels[known < 0.5] = unlabelled
    return image, labels.unflatten(0, labels_CTHW.shape[:2])


def _vary_grey(image_THW: torch.Tensor, config: AugmentConfig, rng: np.random.Generator) -> torch.Tensor:
    """Vary contrast, brightness, gamma, sharpness and noise of a whole window."""
    contrast = rng.uniform(1.0 - config.contrast_fraction, 1.0 + config.contrast_fraction)
    brightness = rng.uniform(-config.brightness, config.brightness)
    mean = image_THW.mean()
    varied = ((image_THW - mean) * contrast + mean + brightness).clamp(0.0, 1.0)
    if config.gamma_fraction > 0:
        reach = math.log(1.0 + config.gamma_fraction)
        varied = varied.clamp(min=1e-4) ** math.exp(rng.uniform(-reach, reach))
    if rng.random() < config.blur_probability and config.blur_sigma_voxels > 0:
        varied = blur(varied, rng.uniform(0.3, 1.0) * config.blur_sigma_voxels)
    if config.noise_sigma > 0:
        varied = varied + _noise(varied.shape, rng) * float(rng.uniform(0.0, config.noise_sigma))
    return varied


def _noise(shape: torch.Size, rng: np.random.Generator) -> torch.Tensor:
    values: npt.NDArray[np.float32] = rng.standard_normal(tuple(shape), dtype=np.float32)
    return torch.from_numpy(values)
