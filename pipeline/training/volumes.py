"""Volumes of a training config as arrays: read from a store, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.geometry import Box, Vector
from pipeline.phantom import PhantomSpec, render
from pipeline.storage import StorageOptions, open_volume
from pipeline.training.datasets import resolve_dataset
from pipeline.training.schema import LabelSection, PhantomSection, SliceRange, VolumeSection

if TYPE_CHECKING:
    from sam4em_core.training import TrainingVolume

_UNLABELLED = 255


def load_volume(
    section: VolumeSection, classes: Sequence[str], storage: StorageOptions, *, with_ids: bool = False
) -> TrainingVolume:
    """Read or draw one volume into arrays.

    Args:
        section: the volume.
        classes: names in channel order.
        storage: how stores are reached.
        with_ids: keep the labels' instance ids: signed distances then part objects that touch.

    Raises:
        ConfigError: its classes are not those of the training.
    """
    if set(section.labels) != set(classes):
        raise ConfigError(
            f"volume {section.name}: labels are given for {sorted(section.labels)}, "
            f"the training's classes are {sorted(classes)}"
        )
    if section.phantom is not None:
        return _draw_phantom(section, section.phantom, classes, with_ids=with_ids)
    return _read_volume(resolve_dataset(section, storage), classes, storage, with_ids=with_ids)


def check_apart(sections: Sequence[VolumeSection]) -> None:
    """Refuse a region that trains in one entry and chooses in another: one image may be given several times.

    Raises:
        ConfigError: names both entries.
    """
    for one, other in permutations(sections, 2):
        source = (one.image, one.dataset, one.phantom, one.level)
        if source != (other.image, other.dataset, other.phantom, other.level):
            continue
        pairs = [(one.train, other.choose), (one.region.y, other.region.y), (one.region.x, other.region.x)]
        if one.train and other.choose and all(_meet(*pair) for pair in pairs):
            raise ConfigError(
                f"volumes {one.name} and {other.name} read one image; what the first trains on, slices {one.train}, "
                f"overlaps what the second chooses by, slices {other.choose}"
            )


def _meet(one: SliceRange | None, other: SliceRange | None) -> bool:
    """Tell whether two ranges share an index; None is everything."""
    return one is None or other is None or max(one[0], other[0]) < min(one[1], other[1])


def _draw_phantom(
    section: VolumeSection, phantom: PhantomSection, classes: Sequence[str], *, with_ids: bool
) -> TrainingVolume:
    from sam4em_core.training import TrainingVolume  # noqa: PLC0415

    spec = PhantomSpec(**phantom.model_dump(exclude_none=True))
    block = render(spec, spec.box, want=("image", *map(str, section.labels.values())))
    layers = [getattr(block, f"{section.labels[name]}_zyx") for name in classes]
    labels = np.stack([_known(layer, section, LabelSection(url="")) for layer in layers])
    labels[:, _without_truth(section, len(block.image_zyx) if block.image_zyx is not None else 0)] = _UNLABELLED
    if block.image_zyx is None:
        raise ConfigError(f"volume {section.name}: the phantom has no image")
    return TrainingVolume(
        section.name,
        block.image_zyx,
        labels,
        spec.voxel_size_zyx_nm,
        section.train,
        section.choose,
        ids_czyx=_ids(layers, labels) if with_ids else None,
    )


def _read_volume(
    section: VolumeSection, classes: Sequence[str], storage: StorageOptions, *, with_ids: bool
) -> TrainingVolume:
    from sam4em_core.training import TrainingVolume  # noqa: PLC0415

    image = open_volume(str(section.image), storage, voxel_size_zyx_nm=section.voxel_size_zyx_nm, level=section.level)
    shape = image.info.shape
    box = _region_box(section, shape)
    voxel_size = image.require_voxel_size()
    read = [_read_labels(section, name, shape, box, storage) for name in classes]
    labels = np.stack([known for known, _ in read])
    labels[:, _without_truth(section, shape[0])[box.start[0] : box.stop[0]]] = _UNLABELLED
    first = box.start[0]
    return TrainingVolume(
        section.name,
        image.read(box),
        labels,
        voxel_size,
        train=_moved(section.train, first),
        choose=_moved(section.choose, first),
        ids_czyx=_ids([layer for _, layer in read], labels) if with_ids else None,
    )


def _region_box(section: VolumeSection, shape: Vector) -> Box:
    """Give the voxels that are read.

    Raises:
        ConfigError: they leave the volume.
    """
    ranges = [extent or (0, size) for (_, extent), size in zip(section.region, shape, strict=True)]
    box = Box((ranges[0][0], ranges[1][0], ranges[2][0]), (ranges[0][1], ranges[1][1], ranges[2][1]))
    if not Box.of_shape(shape).contains(box):
        raise ConfigError(f"volume {section.name}: region {box} leaves the image, which is {Box.of_shape(shape)}")
    return box


def _moved(slices: SliceRange | None, first: int) -> SliceRange | None:
    return None if slices is None else (slices[0] - first, slices[1] - first)


def _read_labels(
    section: VolumeSection, name: str, shape: Vector, box: Box, storage: StorageOptions
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Read the labels of one class in the region: 0, 1, or 255 where there is no truth; and as they are stored."""
    given = section.labels[name]
    source = LabelSection(url=given) if isinstance(given, str) else given
    stored = open_volume(source.url, storage, kind="labels")
    if source.offset_zyx is None and stored.info.shape != shape:
        raise ConfigError(
            f"volume {section.name}: the labels of {name} have shape {stored.info.shape}, the image {shape}; labels "
            "that cover a part of it need offset_zyx"
        )
    start = source.offset_zyx or (0, 0, 0)
    placed = Box.of_shape(stored.info.shape, start).intersection(box)
    if placed.is_empty:
        raise ConfigError(
            f"volume {section.name}: the labels of {name} cover {Box.of_shape(stored.info.shape, start)}, nothing of "
            f"the region {box}"
        )
    known, layer = np.full(box.shape, _UNLABELLED, np.uint8), np.zeros(box.shape, stored.info.dtype)
    inside = placed.relative_to(box.start).slices
    layer[inside] = stored.read(placed.relative_to(start))
    known[inside] = _known(layer[inside], section, source)
    return known, layer


def _ids(layers: Sequence[NDArray[Any]], labels_czyx: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Number the instances of every class densely; 0 where there is none, or where the truth is not used."""
    ids = [fastremap.renumber(layer, preserve_zero=True, in_place=False)[0].astype(np.uint32) for layer in layers]
    return np.where(labels_czyx == 1, np.stack(ids), np.uint32(0))


def _known(labels_zyx: NDArray[Any], section: VolumeSection, source: LabelSection) -> NDArray[np.uint8]:
    """Turn ids into 0 / 1 / unlabelled."""
    if source.values is None:
        result = (labels_zyx != source.background).astype(np.uint8)
    else:
        largest = np.iinfo(labels_zyx.dtype).max
        values = np.array([value for value in source.values if value <= largest], labels_zyx.dtype)
        result = np.isin(labels_zyx, values).astype(np.uint8)
    unlabelled = {*source.unlabelled, *(() if section.unlabelled is None else (section.unlabelled,))}
    for label in unlabelled:
        result[labels_zyx == label] = _UNLABELLED
    return result


def _without_truth(section: VolumeSection, num_slices: int) -> NDArray[np.bool_]:
    """Mark the slices whose truth must not be used; the choose range keeps its own.

    Raises:
        ConfigError: a listed slice is not there.
    """
    listed = section.labelled_slices
    if section.labelled_every is not None:
        first, last = section.train or (0, num_slices)
        listed = tuple(range(first, min(last, num_slices), section.labelled_every))
    unknown = np.full(num_slices, listed is not None)
    if listed and max(listed) >= num_slices:
        raise ConfigError(
            f"volume {section.name}: labelled_slices names slice {max(listed)}; the volume has {num_slices}"
        )
    unknown[list(listed or ())] = False
    if section.choose is not None:
        unknown[slice(*section.choose)] = False
    return unknown
