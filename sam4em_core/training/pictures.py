"""Pictures of the worst and the best validation slice: image, truth and prediction side by side."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sam4em_core.training.data import UNLABELLED
from sam4em_core.training.scores import OverlapCounts, count_overlap
from sam4em_core.training.state import make_folder, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from sam4em_core.training.validate import ChooseRegion

    Picture = npt.NDArray[np.uint8]

_GAP = 4
"""White columns between two panels, pixels."""

# Source: Okabe and Ito, color universal design: eight colors that color-blind readers can tell apart, without black.
_COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))


@dataclass(frozen=True)
class RankedSlice:
    """One validation slice and its score."""

    volume: str
    """Name of the volume."""
    slice: int
    """Index among the volume's choose slices."""
    iou: float
    """Mean over the classes that are there, in truth or prediction."""


class SliceGallery:
    """Holds the predictions of one validation until the thresholds are known."""

    def __init__(self) -> None:
        self._parts: dict[int, tuple[ChooseRegion, npt.NDArray[np.uint8]]] = {}

    def add(self, region: ChooseRegion, probability_czyx: npt.NDArray[np.float32]) -> None:
        """Take the prediction of a region; the first one of a region counts.

        Args:
            region: what was predicted.
            probability_czyx: in [0, 1], in the truth's voxels.
        """
        if id(region) not in self._parts:
            self._parts[id(region)] = (region, np.rint(probability_czyx * 255).astype(np.uint8))

    def write(self, folder: Path, thresholds: tuple[float, ...]) -> dict[str, Any]:
        """Draw worst.png and best.png of the slices that hold something.

        Args:
            folder: where they are written; made where it is missing.
            thresholds: probability from which a voxel is inside, per class.

        Returns:
            The two slices, by `worst` and `best`; empty where every slice is empty.

        Raises:
            TrainingDiskError: the disk is full or does not allow writing.
        """
        ranked = sorted(self._ranked(thresholds), key=lambda item: item[0].iou)
        if not ranked:
            return {}
        chosen = {"worst": ranked[0], "best": ranked[-1]}
        make_folder(folder)
        for name, (item, region, probability_czyx) in chosen.items():
            picture = Image.fromarray(draw_slice(region, probability_czyx, item.slice, thresholds))
            write_whole(folder / f"{name}.png", partial(picture.save, format="PNG"))
        return {name: asdict(item) for name, (item, _, _) in chosen.items()}

    def _ranked(self, thresholds: tuple[float, ...]) -> list[tuple[RankedSlice, ChooseRegion, npt.NDArray[np.float32]]]:
        ranked = []
        for region, stored in self._parts.values():
            probability = stored.astype(np.float32) / np.float32(255)
            for index in range(probability.shape[1]):
                ious = [
                    counts.iou
                    for channel, threshold in enumerate(thresholds)
                    if (counts := _count(region, probability, channel, index, threshold)) != OverlapCounts()
                ]
                if ious:
                    item = RankedSlice(region.name, index, round(sum(ious) / len(ious), 5))
                    ranked.append((item, region, probability))
        return ranked


def draw_slice(
    region: ChooseRegion, probability_czyx: npt.NDArray[np.float32], index: int, thresholds: tuple[float, ...]
) -> Picture:
    """Draw image, truth and prediction of one slice side by side, shape (height, 3 widths and gaps, 3).

    Classes are tinted in colors of their own; voxels of unknown truth are darkened.
    """
    truth_cyx = region.truth_czyx[:, index]
    height, width = truth_cyx.shape[1:]
    grey = _grey(region, index, (height, width))
    inside = [channel[index] >= threshold for channel, threshold in zip(probability_czyx, thresholds, strict=True)]
    with_truth = _tinted(grey, [channel == 1 for channel in truth_cyx])
    with_truth[(truth_cyx == UNLABELLED).all(axis=0)] //= 3
    gap = np.full((height, _GAP, 3), 255, np.uint8)
    return np.concatenate([grey, gap, with_truth, gap, _tinted(grey, inside)], axis=1)


def _count(
    region: ChooseRegion, probability: npt.NDArray[np.float32], channel: int, index: int, threshold: float
) -> OverlapCounts:
    return count_overlap(probability[channel, index], region.truth_czyx[channel, index], threshold, UNLABELLED)


def _grey(region: ChooseRegion, index: int, size: tuple[int, int]) -> Picture:
    """Give the image under a slice of the truth, at the truth's size."""
    center_nm = (index + 0.5) * region.source_zyx_nm[0] + region.lead_z_nm
    working = int(center_nm / region.working_zyx_nm[0])
    plane = region.image_zyx[region.context_below + min(max(working, 0), region.num_slices - 1)]
    image = Image.fromarray(np.rint(plane * 255).astype(np.uint8))
    resized = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return np.repeat(resized[:, :, None], 3, axis=2)


def _tinted(grey: Picture, masks: list[npt.NDArray[np.bool_]]) -> Picture:
    tinted = grey.astype(np.uint16)
    for index, mask in enumerate(masks):
        color = np.array(_COLORS[index % len(_COLORS)], np.uint16)
        tinted[mask] = (tinted[mask] + color) // 2
    return tinted.astype(np.uint8)
