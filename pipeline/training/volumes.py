"""Volumes of a training config as arrays: read from a store, or drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, render
from pipeline.storage import StorageOptions, open_volume
from pipeline.training.schema import PhantomSection, VolumeSection

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
    return _read_volume(section, classes, storage, with_ids=with_ids)


def _draw_phantom(
    section: VolumeSection, phantom: PhantomSection, classes: Sequence[str], *, with_ids: bool
) -> TrainingVolume:
    from sam4em_core.training import TrainingVolume  # noqa: PLC0415

    spec = PhantomSpec(**phantom.model_dump(exclude_none=True))
    block = render(spec, spec.box, want=("image", *section.labels.values()))
    layers = [getattr(block, f"{section.labels[name]}_zyx") for name in classes]
    labels = np.stack([_known(layer, section) for layer in layers])
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

    image = open_volume(str(section.image), storage, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    shape = image.info.shape
    box = Box.of_shape((min(shape[0], section.read_slices or shape[0]), shape[1], shape[2]))
    voxel_size = image.require_voxel_size()
    layers = []
    for name in classes:
        source = open_volume(section.labels[name], storage, kind="labels")
        if source.info.shape != shape:
            raise ConfigError(
                f"volume {section.name}: the labels of {name} have shape {source.info.shape}, the image {shape}"
            )
        layers.append(source.read(box))
    labels = np.stack([_known(layer, section) for layer in layers])
    return TrainingVolume(
        section.name,
        image.read(box),
        labels,
        voxel_size,
        train=section.train,
        choose=section.choose,
        ids_czyx=_ids(layers, labels) if with_ids else None,
    )


def _ids(layers: Sequence[NDArray[Any]], labels_czyx: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Number the instances of every class densely; 0 where there is none, or where the truth is not used."""
    ids = [fastremap.renumber(layer, preserve_zero=True, in_place=False)[0].astype(np.uint32) for layer in layers]
    return np.where(labels_czyx == 1, np.stack(ids), np.uint32(0))


def _known(labels_zyx: NDArray[Any], section: VolumeSection) -> NDArray[np.uint8]:
    """Turn ids into 0 / 1 / unlabelled."""
    result = (labels_zyx != 0).astype(np.uint8)
    if section.unlabelled is not None:
        result[labels_zyx == section.unlabelled] = _UNLABELLED
    result[_without_truth(section, len(result))] = _UNLABELLED
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
