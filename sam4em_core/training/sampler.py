"""Where the next window comes from: volumes in proportion to size, classes in turn, few empty windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sam4em_core.training.data import grey_of
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.fields import UNKNOWN

if TYPE_CHECKING:
    import numpy.typing as npt

    from sam4em_core.training.config import SamplingConfig
    from sam4em_core.training.data import WorkingVolume

    Bytes = npt.NDArray[np.uint8]
    Index = tuple[int, int, int]

_MAX_POSITIONS = 200_000
"""Foreground voxels remembered per volume and class."""
_ROUNDING = 1e-6
_MAX_DRAWS = 20
"""Draws after which an almost empty window is taken as it is."""


_VIEWS = ((0, 1, 2), (1, 0, 2), (2, 1, 0))
"""Axes of the volume in the order of a window's slices, rows and columns: slices along z, along y, along x."""
_AXIS_NAMES = "zyx"


@dataclass(frozen=True)
class Window:
    """A piece of a volume, larger than the crop by the margin that the augmentation needs."""

    origin: str
    """Volume and first voxel of the crop, for messages."""
    image_zyx: npt.NDArray[np.float32]
    """Grey values in [0, 1]; padded by reflection where it leaves the volume."""
    labels_czyx: npt.NDArray[np.uint8]
    """Truth per class; unlabelled where it leaves the volume."""
    field_czyx: npt.NDArray[np.uint8] | None = None
    """Signed distances per class as bytes (`fields`); unknown where it leaves the volume."""
    loss_share: float = 1.0
    """What it weighs in the loss."""


class WindowSampler:
    """Draws windows of one size from volumes on the working lattice."""

    def __init__(self, volumes: list[WorkingVolume], config: SamplingConfig, *, unlabelled: int = 255) -> None:
        """Remember where the classes are.

        Args:
            volumes: volumes on the working lattice.
            config: how windows are balanced.
            unlabelled: label of voxels whose truth is unknown.

        Raises:
            TrainingSetupError: there is no volume.
        """
        if not volumes:
            raise TrainingSetupError("no volume has a train range; give at least one")
        self.volumes = volumes
        self._config = config
        self._unlabelled = unlabelled
        self._share = draw_shares(volumes)
        self._positions = [self._find_positions(volume) for volume in volumes]

    @staticmethod
    def _find_positions(volume: WorkingVolume) -> list[npt.NDArray[np.int64]]:
        """List foreground voxels per class, thinned evenly to a bounded number."""
        positions = []
        for channel in volume.labels_czyx:
            flat = np.flatnonzero(channel == 1)
            positions.append(flat[:: max(1, -(-flat.size // _MAX_POSITIONS))])
        return positions

    def draw(self, rng: np.random.Generator, slices: int, crop_voxels: int, margin_voxels: int) -> Window:
        """Draw one window of `slices` x (crop + 2 margin)^2 voxels.

        Args:
            rng: the random stream.
            slices: consecutive slices; a thinner volume is reflected in z.
            crop_voxels: side of the part that is trained on.
            margin_voxels: extra voxels on each side in y and x.
        """
        for _ in range(_MAX_DRAWS):
            index = int(rng.choice(len(self.volumes), p=self._share))
            view = self._draw_view(rng)
            focused = rng.random() < self._config.foreground_fraction
            center = self._draw_center(rng, index, focused)
            labels, start = self._take_labels(rng, index, view, center, (slices, crop_voxels, crop_voxels))
            num_labelled = int(np.count_nonzero(labels != self._unlabelled))
            if num_labelled == 0:
                continue
            foreground = np.count_nonzero(labels == 1) / num_labelled
            enough = foreground >= self._config.background_below_fraction
            if focused or enough or rng.random() < self._config.keep_background_probability:
                break
        return self._cut(index, view, start, slices, crop_voxels, margin_voxels)

    def _draw_view(self, rng: np.random.Generator) -> Index:
        fraction = self._config.other_axes_fraction
        if fraction <= 0 or rng.random() >= fraction:
            return _VIEWS[0]
        return _VIEWS[1 + int(rng.integers(2))]

    def _draw_center(self, rng: np.random.Generator, index: int, focused: bool) -> Index:
        shape = self.volumes[index].image_zyx.shape
        candidates = [flat for flat in self._positions[index] if flat.size]
        if focused and candidates:
            chosen = candidates[int(rng.integers(len(candidates)))]
            flat = int(chosen[int(rng.integers(chosen.size))])
            z, y, x = (int(v) for v in np.unravel_index(flat, shape))
            return z, y, x
        return int(rng.integers(shape[0])), int(rng.integers(shape[1])), int(rng.integers(shape[2]))

    def _take_labels(
        self, rng: np.random.Generator, index: int, view: Index, center: Index, size: Index
    ) -> tuple[Bytes, Index]:
        """Place a crop that holds the center, inside the volume where it fits; give its labels and start.

        Center is in the volume's axes; size and start are in the view's.
        """
        labels = self.volumes[index].labels_czyx.transpose(0, *(axis + 1 for axis in view))
        a, b, c = (
            min(max(center[axis] - int(rng.integers(extent)), 0), max(0, length - extent))
            for axis, extent, length in zip(view, size, labels.shape[1:], strict=True)
        )
        return labels[:, a : a + size[0], b : b + size[1], c : c + size[2]], (a, b, c)

    def _cut(self, index: int, view: Index, start: Index, slices: int, crop_voxels: int, margin_voxels: int) -> Window:
        volume = self.volumes[index]
        begin = (start[0], start[1] - margin_voxels, start[2] - margin_voxels)
        side = crop_voxels + 2 * margin_voxels
        end = (begin[0] + slices, begin[1] + side, begin[2] + side)
        image = _padded(volume.image_zyx.transpose(view), begin, end)
        # A view along another axis is as low as the volume is thin. What is mirrored is tissue, too: its truth stays.
        outside = self._unlabelled if view == _VIEWS[0] else None
        channels = tuple(axis + 1 for axis in view)
        labels = np.stack([_padded(c, begin, end, outside) for c in volume.labels_czyx.transpose(0, *channels)])
        field = None
        if volume.field_czyx is not None:
            field = np.stack([_padded(c, begin, end, UNKNOWN) for c in volume.field_czyx.transpose(0, *channels)])
        first = [start[view.index(axis)] for axis in range(3)]
        origin = f"{volume.name}, slice {first[0] + volume.first_slice}, y {first[1]}, x {first[2]}"
        if view != _VIEWS[0]:
            origin += f", along {_AXIS_NAMES[view[0]]}"
        return Window(origin, grey_of(image), labels, field, volume.loss_share)


def _padded(volume_zyx: Bytes, begin: Index, end: Index, outside: int | None = None) -> Bytes:
    """Cut a box that may leave the volume: mirrored there, or one value."""
    inside = tuple(slice(max(0, a), min(length, b)) for a, b, length in zip(begin, end, volume_zyx.shape, strict=True))
    padding = [(part.start - a, b - part.stop) for part, a, b in zip(inside, begin, end, strict=True)]
    if outside is None:
        return np.pad(volume_zyx[inside], padding, mode="symmetric")
    return np.pad(volume_zyx[inside], padding, constant_values=outside)


def draw_shares(volumes: list[WorkingVolume]) -> npt.NDArray[np.float64]:
    """Give the chance of every volume: what it asks for; the rest is shared by size.

    Raises:
        TrainingSetupError: the shares that are asked for leave no chance, or no sum of 1.
    """
    asked = np.array([volume.draw_share or 0.0 for volume in volumes])
    sizes = np.array([0.0 if volume.draw_share is not None else volume.image_zyx.size for volume in volumes])
    rest = 1.0 - float(asked.sum())
    if not sizes.any():
        if abs(rest) > _ROUNDING:
            raise TrainingSetupError(f"volumes ask for {asked.sum():g} of the windows together; it must be 1")
        return asked / asked.sum()
    if rest <= 0:
        raise TrainingSetupError(
            f"volumes ask for {asked.sum():g} of the windows, and nothing is left for the others; lower their shares"
        )
    shares: npt.NDArray[np.float64] = asked + rest * sizes / sizes.sum()
    return shares
