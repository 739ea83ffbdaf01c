"""Which slices to label next: far from those that are labelled, and where the result is least certain.

    of a dual-track training    1 - quality of its last finished round (agreement of the tracks x expected IoU)
    of a run                    1 - IoU that its kept probabilities expect of themselves, where it kept them
    of a volume                 nothing is known: spread alone

Greedy: every choice counts as labelled for the next one. A slice's value is its need times its distance from the
nearest labelled slice, as a fraction of the spacing that evenly spread slices would have, at most 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import StorageOptions, Volume, open_volume
from pipeline.training.round_store import FACTS_FILE

# What every slice needs at least: where all are certain, they are spread.
_LEAST_NEED: Final = 0.02
_SLAB_SLICES: Final = 16
_ONE: Final = 255


@dataclass(frozen=True)
class SliceNeeds:
    """What is known of the slices of one volume."""

    name: str
    """Name of the volume."""
    need_z: NDArray[np.float64]
    """How uncertain each slice is, in [0, 1]."""
    labelled: tuple[int, ...]
    """Slices that are labelled already."""
    image_slices: tuple[int, ...]
    """Slice of the image that each of them is."""


def suggest_slices(
    source: str, count: int, options: StorageOptions, *, image_z_nm: float | None = None
) -> list[dict[str, Any]]:
    """Suggest slices to label.

    Args:
        source: directory of a dual-track training, first output of a run, or an image volume.
        count: how many, over all volumes together.
        options: how stores are reached.
        image_z_nm: thickness of the image's slices, where a run's own lattice is another.

    Returns:
        One row per slice, best first: volume, slice of the image, need, distance to the nearest labelled slice.

    Raises:
        UserError: count is below 1, or there are not so many unlabelled slices.
        VolumeNotFound: nothing is there.
    """
    if count < 1:
        raise UserError(f"suggesting {count} slices: ask for at least one")
    needs = list(_needs_of(source, options, image_z_nm))
    free = sum(len(item.need_z) - len(item.labelled) for item in needs)
    if free < count:
        raise UserError(f"suggesting {count} slices of {source}: only {free} are not labelled")
    return spread_over(needs, count)


def spread_over(needs: Sequence[SliceNeeds], count: int) -> list[dict[str, Any]]:
    """Choose slices greedily; see above."""
    chosen: list[set[int]] = [set(item.labelled) for item in needs]
    rows = []
    for _ in range(count):
        total = sum(map(len, chosen)) + 1
        values = [_values(item, taken, total) for item, taken in zip(needs, chosen, strict=True)]
        index = max(range(len(needs)), key=lambda number: float(values[number][0].max()))
        value_z, distance_z = values[index]
        z = int(value_z.argmax())
        item = needs[index]
        rows.append(
            {
                "volume": item.name,
                "slice": item.image_slices[z],
                "need": round(float(item.need_z[z]), 4),
                "slices_to_nearest": None if not chosen[index] else int(distance_z[z]),
            }
        )
        chosen[index].add(z)
    return rows


def _values(item: SliceNeeds, taken: set[int], total: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give what each slice is worth, below 0 where it is taken, and its distance to the nearest taken one."""
    depth = len(item.need_z)
    places = np.arange(depth)
    if taken:
        distance = np.abs(places[:, None] - np.array(sorted(taken))).min(axis=1).astype(np.float64)
    else:
        # Nothing is labelled: the middle of the volume is farthest from what is not known, its two ends.
        distance = np.minimum(places, depth - 1 - places) + 1.0
    spacing = max(1.0, depth / (total + 1))
    value = (item.need_z + _LEAST_NEED) * np.minimum(1.0, distance / spacing)
    # Among equals the one that is farther away.
    value = value + 1e-9 * distance
    value[list(taken)] = -1.0
    return value, distance


def _needs_of(source: str, options: StorageOptions, image_z_nm: float | None) -> Iterator[SliceNeeds]:
    if (Path(source) / "round-0").is_dir():
        yield from _needs_of_training(Path(source))
        return
    folder = Path(f"{source.rstrip('/')}.predictions")
    kept = sorted(folder.glob("probability-*.zarr")) if folder.is_dir() else []
    if kept:
        volumes = [open_volume(str(path), options) for path in kept]
        yield _needs_of_run(Path(source).name, volumes, image_z_nm)
        return
    depth = open_volume(source, options).info.shape[0]
    yield SliceNeeds(Path(source).name, np.zeros(depth), (), tuple(range(depth)))


def _needs_of_training(run_dir: Path) -> Iterator[SliceNeeds]:
    """Read the last round that has segmented its volumes.

    Raises:
        VolumeNotFound: no round has come so far.
    """
    rounds = sorted(run_dir.glob("round-*"), key=lambda path: int(path.name.removeprefix("round-")), reverse=True)
    for place in rounds:
        found = sorted(place.glob(f"*/{FACTS_FILE}"))
        for path in found:
            facts = json.loads(path.read_text(encoding="utf-8"))
            need = 1 - np.array(facts["quality_by_slice"], np.float64)
            yield SliceNeeds(path.parent.name, need, tuple(facts["labelled_slices"]), tuple(facts["image_slices"]))
        if found:
            return
    raise VolumeNotFound(f"{run_dir}: no round has segmented its volumes yet; nothing is known of the slices")


def _needs_of_run(name: str, probabilities: Sequence[Volume], image_z_nm: float | None) -> SliceNeeds:
    depth = probabilities[0].info.shape[0]
    within, union = np.zeros(depth), np.zeros(depth)
    for volume in probabilities:
        shape = volume.info.shape
        for start in range(0, depth, _SLAB_SLICES):
            stop = min(depth, start + _SLAB_SLICES)
            slab = volume.read(Box((start, 0, 0), (stop, shape[1], shape[2]))).astype(np.int64)
            inside = slab > _ONE // 2
            within[start:stop] += np.where(inside, slab, 0).sum(axis=(1, 2)) / _ONE
            union[start:stop] += inside.sum(axis=(1, 2)) + np.where(inside, 0, slab).sum(axis=(1, 2)) / _ONE
    need = np.where(union > 0, 1 - within / np.maximum(union, 1e-9), 0.0)
    ratio = 1.0 if image_z_nm is None else probabilities[0].require_voxel_size()[0] / image_z_nm
    return SliceNeeds(name, need, (), tuple(int((z + 0.5) * ratio) for z in range(depth)))
