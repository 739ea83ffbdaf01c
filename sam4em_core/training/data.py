"""Volumes to train on: checked, and resampled once to the working voxel size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.resample import resample_float, resample_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

UNLABELLED = 255
"""Label of a voxel whose truth is unknown: it adds nothing to loss or score."""

GREY_FRACTIONS = (0.002, 0.998)
"""Share of the voxels below the grey values that map to 0 and to 1."""

GreyArray = npt.NDArray[np.unsignedinteger[Any]]
VoxelSize = tuple[float, float, float]
SliceRange = tuple[int, int]

_WHITE = np.float32(255)


@dataclass(frozen=True)
class TrainingVolume:
    """One image with its truth and its splits; the arrays begin at the volume's origin."""

    name: str
    """Name in the log and in errors."""
    image_zyx: GreyArray
    """Grey values, uint8 or uint16, shape (z, y, x)."""
    labels_czyx: npt.NDArray[np.uint8]
    """Truth per class in the config's order, shape (class, z, y, x): 0, 1, or 255 for unlabelled."""
    voxel_size_zyx_nm: VoxelSize
    """Voxel size, nm."""
    train: SliceRange | None = None
    """Slices to train on, half-open; none for a volume that only validates."""
    choose: SliceRange | None = None
    """Slices that choose model and thresholds, half-open; none for a volume that only trains."""
    grey_range: tuple[float, float] | None = None
    """Grey values that map to 0 and 1; by default read off the image's histogram."""
    ids_czyx: npt.NDArray[np.unsignedinteger[Any]] | None = None
    """Instance ids per class, 0 outside, the labels' shape: signed distances then part objects that touch."""
    field_czyx: npt.NDArray[np.uint8] | None = None
    """Signed distances per class as bytes (`fields`), the labels' shape; by default those of the truth."""
    loss_share: float = 1.0
    """What a window from here weighs in the loss: pseudo-labels less than truth."""
    draw_share: float | None = None
    """Share of all windows that come from here; by default the volumes without one share the rest by size."""


@dataclass(frozen=True)
class WorkingVolume:
    """A volume on the working lattice: the part that trains."""

    name: str
    """Name in the log."""
    image_zyx: npt.NDArray[np.uint8]
    """Grey values, the volume's grey range mapped to 0..255."""
    labels_czyx: npt.NDArray[np.uint8]
    """Truth per class: 0, 1, or 255 for unlabelled."""
    first_slice: int
    """Index of the first slice, in slices of the working lattice from the volume's origin."""
    field_czyx: npt.NDArray[np.uint8] | None = None
    """Signed distances per class as bytes (`fields`); None where nothing needs them."""
    loss_share: float = 1.0
    """What a window from here weighs in the loss."""
    draw_share: float | None = None
    """Share of all windows that come from here; None: by size."""


def grey_of(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Grey values of a working lattice as a network sees them, 0 to 1."""
    return image.astype(np.float32) / _WHITE


def check_volume(volume: TrainingVolume, classes: tuple[str, ...]) -> None:
    """Refuse a volume that cannot be trained on.

    Raises:
        TrainingSetupError: dtype, shape, voxel size or splits are not usable.
    """
    image, labels = volume.image_zyx, volume.labels_czyx
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16):
        raise TrainingSetupError(
            f"volume {volume.name}: the image has shape {image.shape} and type {image.dtype}; "
            "it must be (z, y, x), uint8 or uint16"
        )
    if labels.shape != (len(classes), *image.shape) or labels.dtype != np.uint8:
        raise TrainingSetupError(
            f"volume {volume.name}: the labels have shape {labels.shape} and type {labels.dtype}; "
            f"the image needs uint8 of shape {(len(classes), *image.shape)}"
        )
    if volume.ids_czyx is not None and (
        volume.ids_czyx.shape != labels.shape or not np.array_equal(volume.ids_czyx != 0, labels == 1)
    ):
        raise TrainingSetupError(
            f"volume {volume.name}: the instance ids have shape {volume.ids_czyx.shape} or lie elsewhere than the "
            f"labels of shape {labels.shape}; an id must stand where a label is 1, and 0 elsewhere"
        )
    if volume.field_czyx is not None and volume.field_czyx.shape != labels.shape:
        raise TrainingSetupError(
            f"volume {volume.name}: its signed distances have shape {volume.field_czyx.shape}, the labels "
            f"{labels.shape}; they must be the same"
        )
    if any(not (math.isfinite(size) and size > 0) for size in volume.voxel_size_zyx_nm):
        raise TrainingSetupError(
            f"volume {volume.name}: its voxel size is {volume.voxel_size_zyx_nm} nm; it must be above 0"
        )
    _check_splits(volume)


def _check_splits(volume: TrainingVolume) -> None:
    splits = {"train": volume.train, "choose": volume.choose}
    depth = volume.image_zyx.shape[0]
    for name, split in splits.items():
        if split is not None and not 0 <= split[0] < split[1] <= depth:
            raise TrainingSetupError(
                f"volume {volume.name}: {name} is {split[0]}:{split[1]}; it must lie in 0:{depth}, not empty"
            )
    if volume.train is None and volume.choose is None:
        raise TrainingSetupError(f"volume {volume.name}: it has neither a train nor a choose range")
    if volume.train is not None and volume.choose is not None:
        start, stop = max(volume.train[0], volume.choose[0]), min(volume.train[1], volume.choose[1])
        if start < stop:
            raise TrainingSetupError(
                f"volume {volume.name}: train and choose share slices {start}:{stop}; they must not overlap"
            )


def working_range(split: SliceRange, source_nm: float, working_nm: float) -> SliceRange:
    """Give the slices of the working lattice that lie wholly inside a range of source slices."""
    start = math.ceil(split[0] * source_nm / working_nm - 1e-6)
    stop = math.floor(split[1] * source_nm / working_nm + 1e-6)
    return start, stop


def to_working_lattice(volume: TrainingVolume, working_zyx_nm: VoxelSize) -> WorkingVolume:
    """Resample the train range of a volume, lattice anchored at the volume's origin.

    Raises:
        TrainingSetupError: no whole slice of the working lattice fits into the range.
    """
    if volume.train is None:
        raise TrainingSetupError(f"volume {volume.name}: it has no train range to resample")
    source_z_nm = volume.voxel_size_zyx_nm[0]
    start, stop = working_range(volume.train, source_z_nm, working_zyx_nm[0])
    if stop <= start:
        raise TrainingSetupError(
            f"volume {volume.name}: its train range {volume.train} holds no whole slice of {working_zyx_nm[0]} nm"
        )
    image = working_image(volume, volume.train[1], working_zyx_nm)
    labels = np.stack(
        [
            resample_labels(channel[: volume.train[1]], volume.voxel_size_zyx_nm, working_zyx_nm, UNLABELLED)
            for channel in volume.labels_czyx
        ]
    )
    grey = np.rint(image[start:stop] * _WHITE).astype(np.uint8)
    return WorkingVolume(
        volume.name,
        grey,
        labels[:, start:stop],
        start,
        loss_share=volume.loss_share,
        draw_share=volume.draw_share,
    )


def working_image(volume: TrainingVolume, last_slice: int, working_zyx_nm: VoxelSize) -> npt.NDArray[np.float32]:
    """Resample source slices 0 to `last_slice` and map the volume's grey range to [0, 1]."""
    low, high = volume.grey_range or grey_range(volume.image_zyx)
    image = resample_float(volume.image_zyx[:last_slice], volume.voxel_size_zyx_nm, working_zyx_nm)
    return np.clip((image - np.float32(low)) / np.float32(high - low), 0.0, 1.0)


def grey_range(image_zyx: GreyArray) -> tuple[float, float]:
    """Give the grey values that map to 0 and 1, by the rule that inference uses.

    The 0.2 % and 99.8 % points of the histogram; 0 and the largest value of the type are padding or
    saturation in most volumes and are left out when anything else is there.
    """
    counts = np.bincount(image_zyx.ravel(), minlength=int(np.iinfo(image_zyx.dtype).max) + 1)
    if counts[1:-1].any():
        counts[0] = counts[-1] = 0
    cumulative = np.cumsum(counts)
    low, high = (int(np.searchsorted(cumulative, part * cumulative[-1])) for part in GREY_FRACTIONS)
    return float(low), float(max(high, low + 1))


def check_cubes(volumes: Sequence[TrainingVolume]) -> None:
    """Refuse volumes whose voxels are not cubes: seen along another axis they look like nothing that will be segmented.

    Raises:
        TrainingSetupError: a volume that trains has another voxel size along one axis.
    """
    for volume in volumes:
        if volume.train is not None and len(set(volume.voxel_size_zyx_nm)) > 1:
            raise TrainingSetupError(
                f"volume {volume.name}: sampling.other_axes_fraction needs voxels that are cubes; these measure "
                f"{volume.voxel_size_zyx_nm} nm. Set it to 0"
            )


def check_classes(volumes: list[WorkingVolume], classes: tuple[str, ...]) -> None:
    """Refuse a class without a single voxel in all training volumes together.

    Raises:
        TrainingSetupError: a class has no voxel.
    """
    for index, name in enumerate(classes):
        if not any(bool((volume.labels_czyx[index] == 1).any()) for volume in volumes):
            raise TrainingSetupError(
                f"class {name!r} has no voxel in the train ranges of {[v.name for v in volumes]}; "
                "give labels for it or leave the class out"
            )


def check_choosable(volumes: Sequence[TrainingVolume], classes: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse choose ranges that together hold no foreground at all.

    Returns:
        Classes without a voxel in the choose ranges: nothing chooses their thresholds well.

    Raises:
        TrainingSetupError: there are choose ranges, and no class has a voxel in any.
    """
    chosen = [volume.labels_czyx[:, slice(*volume.choose)] for volume in volumes if volume.choose is not None]
    if not chosen:
        return ()
    absent = tuple(
        name for index, name in enumerate(classes) if not any(bool((labels[index] == 1).any()) for labels in chosen)
    )
    if len(absent) == len(classes):
        names = [volume.name for volume in volumes if volume.choose is not None]
        raise TrainingSetupError(
            f"no class has a voxel in the choose ranges of {names}, so that nothing can be chosen by them; move a "
            "range to where the classes are, or leave it out"
        )
    return absent
