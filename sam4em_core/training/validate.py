"""Scoring a network on the choose slices, through the same chain of windows and tiles as a segmentation.

The choose slices are segmented as a region of interest would be: the windows begin at its first slice, and
the slices around it, where they were read, warm the memory. Probabilities go back to the image's own voxels
before they are counted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam4em_core.field import predict_field
from sam4em_core.lattice import lattice_image
from sam4em_core.patches import patch_grid
from sam4em_core.propagate import BlockInput, predict_block
from sam4em_core.training.data import UNLABELLED, working_image, working_range
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.resample import resample_float
from sam4em_core.training.scores import ClassScore, OverlapCounts, best_threshold, count_overlap

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from sam4em_core.header import CheckpointHeader
    from sam4em_core.model import Sam4emNet
    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.data import TrainingVolume
    from sam4em_core.unet3d import UNet3d

_SURFACE = 0.5
"""Where the surface lies among distances that are brought to [0, 1]."""


@dataclass(frozen=True)
class ChooseRegion:
    """The choose slices of one volume, ready to be predicted and counted."""

    name: str
    """Name of the volume."""
    image_zyx: npt.NDArray[np.float32]
    """Grey values in [0, 1] on the working lattice, context slices included."""
    context_below: int
    """Slices of `image_zyx` before the choose slices."""
    num_slices: int
    """Choose slices on the working lattice."""
    truth_czyx: npt.NDArray[np.uint8]
    """Truth in the image's own voxels: 0, 1, or 255 for unlabelled."""
    source_zyx_nm: tuple[float, float, float]
    """Voxel size of the truth, nm."""
    working_zyx_nm: tuple[float, float, float]
    """Voxel size of the image, nm."""
    lead_z_nm: float
    """How far the truth's first slice lies behind the first choose slice of the working lattice, nm."""


def choose_region(volume: TrainingVolume, config: TrainingConfig) -> ChooseRegion:
    """Cut the choose slices of a volume, with context where the volume has it.

    Raises:
        TrainingSetupError: the volume has no choose range, or one thinner than a working slice.
    """
    if volume.choose is None:
        raise TrainingSetupError(f"volume {volume.name}: it has no choose range")
    source_nm, working_nm = volume.voxel_size_zyx_nm, config.voxel_size_zyx_nm
    first, last = working_range(volume.choose, source_nm[0], working_nm[0])
    last = min(last, first + config.validation.max_slices)
    if last <= first:
        raise TrainingSetupError(
            f"volume {volume.name}: its choose range {volume.choose} holds no whole slice of {working_nm[0]} nm"
        )
    image = working_image(volume, volume.image_zyx.shape[0], working_nm)
    start = max(0, first - config.context_slices)
    if first - start < max(config.validation.window_offsets):
        raise TrainingSetupError(
            f"volume {volume.name}: validation.window_offsets {config.validation.window_offsets} need as many slices "
            f"before the choose range, there are {first - start}"
        )
    stop = min(len(image), last + config.context_slices)
    truth_start, truth_stop = source_slices(first, last, working_nm[0], source_nm[0], volume.choose)
    return ChooseRegion(
        name=volume.name,
        image_zyx=image[start:stop],
        context_below=first - start,
        num_slices=last - first,
        truth_czyx=volume.labels_czyx[:, truth_start:truth_stop],
        source_zyx_nm=source_nm,
        working_zyx_nm=working_nm,
        lead_z_nm=truth_start * source_nm[0] - first * working_nm[0],
    )


def source_slices(
    first: int, last: int, working_nm: float, source_nm: float, choose: tuple[int, int]
) -> tuple[int, int]:
    """Give the source slices whose center lies in a range of working slices, inside the choose range."""
    start = max(choose[0], int(np.ceil(first * working_nm / source_nm - 0.5 - 1e-6)))
    stop = min(choose[1], int(np.ceil(last * working_nm / source_nm - 0.5 - 1e-6)))
    return start, stop


def predict_region(
    network: Sam4emNet, header: CheckpointHeader, region: ChooseRegion, *, window_offset: int = 0, flips: bool = False
) -> npt.NDArray[np.float32]:
    """Predict the choose slices and bring the probabilities to the truth's voxels, shape (c, z, y, x).

    Args:
        network: plain weights, no adapters.
        header: windows, tiles and classes.
        region: what is predicted.
        window_offset: slices by which the first inference window begins before the choose slices; at most the
            region's context.
        flips: average over mirrored tiles.
    """
    height, width = region.image_zyx.shape[1:]
    domain = (region.num_slices + window_offset, height, width)
    below = region.context_below - window_offset
    bounds = ((-below, 0, 0), (len(region.image_zyx) - below, height, width))
    block = BlockInput(region.image_zyx, (-below, 0, 0), bounds, domain, (window_offset, 0, 0), domain)
    was_training = network.training
    network.eval()
    # A model with a U-Net gives its signed distances too, behind the classes.
    probability = predict_block(network, header, block, flips=flips)[: len(header.classes)]
    network.train(was_training)
    return to_truth(probability.astype(np.float32) / np.float32(255), region)


def predict_field_region(network: UNet3d, region: ChooseRegion) -> npt.NDArray[np.float32]:
    """Predict signed distances of the choose slices, (distance / tau + 1) / 2 at the truth's voxels.

    Args:
        network: the U-Net.
        region: on the U-Net's own lattice.
    """
    shape = region.image_zyx.shape
    grid = patch_grid(network.config, (1, 1, 1), ((0, 0, 0), (shape[0], shape[1], shape[2])))
    was_training = network.training
    network.eval()
    start, stop = (region.context_below, 0, 0), (region.context_below + region.num_slices, shape[1], shape[2])
    image = lattice_image(grid, region.image_zyx, (0, 0, 0), start, stop)
    field = predict_field(network, grid, image, start, stop).inside(start, stop)
    network.train(was_training)
    return to_truth((field + np.float32(1)) / np.float32(2), region)


def to_truth(values_czyx: npt.NDArray[np.float32], region: ChooseRegion) -> npt.NDArray[np.float32]:
    """Bring values of the choose slices from the working lattice to the truth's voxels."""
    z, y, x = (int(extent) for extent in region.truth_czyx.shape[1:])
    return np.stack(
        [
            resample_float(channel, region.working_zyx_nm, region.source_zyx_nm, (z, y, x), region.lead_z_nm)
            for channel in values_czyx
        ]
    )


def score_field_regions(
    network: UNet3d,
    classes: tuple[str, ...],
    regions: list[ChooseRegion],
    on_prediction: Callable[[ChooseRegion, npt.NDArray[np.float32]], None] | None = None,
) -> dict[str, ClassScore]:
    """Score a U-Net's zero level, every class over all regions together.

    Args:
        network: the U-Net.
        classes: names in channel order.
        regions: what is scored.
        on_prediction: is shown every region with its distances, 0.5 at the surface.
    """
    counts = [OverlapCounts()] * len(classes)
    for region in regions:
        inside_czyx = predict_field_region(network, region)
        if on_prediction is not None:
            on_prediction(region, inside_czyx)
        counts = [
            total + count_overlap(inside, truth, _SURFACE, UNLABELLED)
            for total, inside, truth in zip(counts, inside_czyx, region.truth_czyx, strict=True)
        ]
    return {name: best_threshold((_SURFACE,), (count,)) for name, count in zip(classes, counts, strict=True)}


def score_regions(
    network: Sam4emNet,
    header: CheckpointHeader,
    regions: list[ChooseRegion],
    thresholds: tuple[float, ...],
    window_offsets: tuple[int, ...] = (0,),
    on_prediction: Callable[[ChooseRegion, npt.NDArray[np.float32]], None] | None = None,
) -> dict[str, ClassScore]:
    """Score every class over all regions and window offsets together, each at its best threshold.

    Args:
        network: plain weights, no adapters.
        header: windows, tiles and classes.
        regions: what is scored.
        thresholds: candidates.
        window_offsets: see `predict_region`; the same slices are counted once per offset.
        on_prediction: is shown every region with its probabilities (c, z, y, x).
    """
    counts = [[OverlapCounts()] * len(thresholds) for _ in header.classes]
    for region, offset in itertools.product(regions, window_offsets):
        probability_czyx = predict_region(network, header, region, window_offset=offset)
        if on_prediction is not None:
            on_prediction(region, probability_czyx)
        for index, probability in enumerate(probability_czyx):
            truth = region.truth_czyx[index]
            counts[index] = [
                total + count_overlap(probability, truth, threshold, UNLABELLED)
                for total, threshold in zip(counts[index], thresholds, strict=True)
            ]
    return {name: best_threshold(thresholds, per_class) for name, per_class in zip(header.classes, counts, strict=True)}
