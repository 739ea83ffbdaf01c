"""The volumes of a dual-track training on their working lattice: image, the few labels, and what they must fulfil."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sam4em_core.training.data import (
    UNLABELLED,
    TrainingVolume,
    check_volume,
    to_working_lattice,
    working_range,
)
from sam4em_core.training.errors import TrainingSetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from sam4em_core.training.data import VoxelSize

logger = logging.getLogger(__name__)

# A slice counts as labelled where at least this share of it is.
_LABELLED_FRACTION = 0.5


@dataclass(frozen=True)
class SparseVolume:
    """A volume with a few labelled slices, and, where it is known, the truth of the others."""

    volume: TrainingVolume
    """Image, labels (255 where there is none), and its ranges."""
    hidden_czyx: npt.NDArray[np.uint8] | None = None
    """Truth that nothing learns from: only scores are counted with it. The labels' shape."""
    corner_zyx_nm: VoxelSize = (0.0, 0.0, 0.0)
    """Lower corner of the arrays' first voxel in the space of the image, nm; for what is shown beside it."""
    first_image_slice: int = 0
    """Index of the arrays' first slice in the whole image."""


@dataclass(frozen=True)
class Subject:
    """The train range of one volume on the working lattice."""

    name: str
    """Name of the volume."""
    image_zyx: npt.NDArray[np.uint8]
    """Grey values, the volume's grey range mapped to 0..255."""
    truth_czyx: npt.NDArray[np.uint8]
    """Labels: 0, 1, or 255 where there is none."""
    voxel_size_zyx_nm: VoxelSize
    """Working voxel size."""
    first_slice: int
    """Index of the first slice, in working slices from the volume's origin."""
    hidden_czyx: npt.NDArray[np.uint8] | None = None
    """Truth for scores alone."""
    corner_zyx_nm: VoxelSize = (0.0, 0.0, 0.0)
    """Lower corner of its first voxel in the space of the image, nm."""
    image_slices: tuple[int, ...] = ()
    """Slice of the whole image in the middle of each of its slices."""

    @property
    def labelled(self) -> tuple[int, ...]:
        """Slices that are labelled, ascending."""
        known = (self.truth_czyx != UNLABELLED).mean(axis=(0, 2, 3))
        return tuple(np.flatnonzero(known >= _LABELLED_FRACTION).tolist())

    def as_volume(self, name: str, labels_czyx: npt.NDArray[np.uint8]) -> TrainingVolume:
        """Give a volume to train on with other labels."""
        return TrainingVolume(
            name,
            self.image_zyx,
            labels_czyx,
            self.voxel_size_zyx_nm,
            train=(0, len(self.image_zyx)),
            grey_range=(0.0, 255.0),
        )


def subjects_of(volumes: Sequence[SparseVolume], classes: tuple[str, ...], working_nm: VoxelSize) -> list[Subject]:
    """Bring the train ranges to the working lattice and refuse labels that nothing can be learnt from.

    Raises:
        TrainingSetupError: no volume has a train range, none has a labelled slice, or a class has no voxel in any.
    """
    subjects = [_subject(sparse, classes, working_nm) for sparse in volumes if sparse.volume.train is not None]
    if not subjects:
        raise TrainingSetupError("no volume has a train range; give at least one")
    unlabelled = [subject.name for subject in subjects if not subject.labelled]
    if len(unlabelled) == len(subjects):
        raise TrainingSetupError(
            f"the train ranges of {', '.join(unlabelled)} hold no labelled slice; label at least one whole slice, "
            "better two far apart (labelled_slices, labelled_every)"
        )
    for index, name in enumerate(classes):
        if not any((subject.truth_czyx[index] == 1).any() for subject in subjects):
            raise TrainingSetupError(
                f"the labelled slices hold no voxel of {name!r}: there is nothing to carry to other slices; label one "
                "that shows it"
            )
    for subject in subjects:
        _warn_of_few_labels(subject)
    return subjects


def _subject(sparse: SparseVolume, classes: tuple[str, ...], working_nm: VoxelSize) -> Subject:
    check_volume(sparse.volume, classes)
    working = to_working_lattice(spread_in_z(sparse.volume, working_nm[0]), working_nm)
    hidden = None
    if sparse.hidden_czyx is not None:
        full = replace(sparse.volume, labels_czyx=sparse.hidden_czyx, ids_czyx=None, field_czyx=None)
        hidden = to_working_lattice(full, working_nm).labels_czyx
    z, y, x = sparse.corner_zyx_nm
    ratio = working_nm[0] / sparse.volume.voxel_size_zyx_nm[0]
    middles = (np.arange(len(working.image_zyx)) + working.first_slice + 0.5) * ratio
    return Subject(
        working.name,
        working.image_zyx,
        working.labels_czyx,
        working_nm,
        working.first_slice,
        hidden,
        (z + working.first_slice * working_nm[0], y, x),
        tuple((np.floor(middles).astype(int) + sparse.first_image_slice).tolist()),
    )


def spread_in_z(volume: TrainingVolume, working_z_nm: float) -> TrainingVolume:
    """Let a labelled slice speak for the working slice that it lies in.

    A working slice may cover several slices of the image, of which a person labels one: the others take its labels.

    Args:
        volume: a volume with labelled slices.
        working_z_nm: thickness of a working slice.
    """
    source_nm = volume.voxel_size_zyx_nm[0]
    if volume.train is None or source_nm >= working_z_nm:
        return volume
    labels = volume.labels_czyx.copy()
    is_labelled = (labels != UNLABELLED).any(axis=(0, 2, 3))
    for index in range(*working_range(volume.train, source_nm, working_z_nm)):
        start = math.floor(index * working_z_nm / source_nm + 0.5)
        stop = math.floor((index + 1) * working_z_nm / source_nm + 0.5)
        speaking = [z for z in range(start, stop) if is_labelled[z]]
        for z in set(range(start, stop)) - set(speaking) if speaking else ():
            labels[:, z] = volume.labels_czyx[:, min(speaking, key=lambda other: abs(other - z))]
    return replace(volume, labels_czyx=labels, ids_czyx=None)


def _warn_of_few_labels(subject: Subject) -> None:
    labelled, depth = subject.labelled, len(subject.image_zyx)
    if not labelled:
        logger.warning("volume %s: no slice is labelled; it gets its labels from the network alone", subject.name)
    elif labelled[-1] - labelled[0] + 1 == len(labelled) and len(labelled) < depth:
        logger.warning(
            "volume %s: no unlabelled slice of %d lies between two labelled ones (%s): masks are carried one way only, "
            "nothing tells where they go wrong, and slices far away are a guess; label one at the other end",
            subject.name,
            depth,
            ", ".join(map(str, labelled)),
        )
