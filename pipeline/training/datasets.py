"""Published data sets in the layout they are handed out in: where image and labels are, and what the labels mean.

| kind | layout | labels |
|---|---|---|
| lucchi | training.tif, training_groundtruth.tif, testing.tif, ... (EPFL) | mitochondria |
| lucchi++ | Train_In, Train_Out, Test_In, Test_Out: folders of PNG (Casser et al. 2018) | mitochondria |
| kasthuri++ | likewise; a grey value of 2 in the masks is no tissue (Casser et al. 2018) | mitochondria |
| mitoem | im/im0000.png, mito-train-v2/seg0000.tif, mito-val-v2/seg0400.tif (Wei et al. 2020, v2) | mitochondria |
| cremi | an HDF5 file: volumes/raw, volumes/labels/...; padded files have an `offset` | neuron_ids, clefts |
| openorganelle | a zarr or N5 group with multi-scale groups em/... and labels/... | the path below labels/ |
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.storage import StorageOptions, open_volume
from pipeline.storage.locations import file_system, join
from pipeline.storage.slices_volume import list_slices
from pipeline.storage.volume import Volume
from pipeline.training.schema import DatasetSection, LabelSection, VolumeSection

_LUCCHI_NM = (5.0, 5.0, 5.0)
_KASTHURI_NM = (30.0, 3.0, 3.0)
_MITOEM_NM = (30.0, 8.0, 8.0)
_MITOCHONDRIA = "mitochondria"
# Clefts of CREMI: the largest id is no cleft.
_NO_CLEFT = 2**64 - 1
# Voxel sizes that differ by less are the same.
_SAME_FRACTION = 1e-3


def resolve_dataset(section: VolumeSection, options: StorageOptions) -> VolumeSection:
    """Replace a data set by the image and the labels that it consists of.

    Args:
        section: a volume of a training config; one without `dataset` comes back as it is.
        options: how stores are reached.

    Raises:
        ConfigError: the data set has no such part, or no labels of that name.
        VolumeNotFound: the files are not where this layout has them.
    """
    if section.dataset is None:
        return section
    found = _KINDS[section.dataset.kind](section, section.dataset, options)
    return section.model_copy(update={"dataset": None, **found})


def _lucchi(section: VolumeSection, dataset: DatasetSection, options: StorageOptions) -> dict[str, object]:
    name = {"train": "training", "test": "testing"}[_part(section, dataset, "train", "test")]
    labels = LabelSection(url=join(dataset.path, f"{name}_groundtruth.tif"))
    return _mitochondria(section, join(dataset.path, f"{name}.tif"), labels, _LUCCHI_NM)


def _casser(section: VolumeSection, dataset: DatasetSection, options: StorageOptions) -> dict[str, object]:
    name = _part(section, dataset, "train", "test").capitalize()
    is_kasthuri = dataset.kind == "kasthuri++"
    unlabelled = (2,) if is_kasthuri else ()
    labels = LabelSection(url=join(dataset.path, f"{name}_Out"), values=(255,), unlabelled=unlabelled)
    return _mitochondria(section, join(dataset.path, f"{name}_In"), labels, _KASTHURI_NM if is_kasthuri else _LUCCHI_NM)


def _mitoem(section: VolumeSection, dataset: DatasetSection, options: StorageOptions) -> dict[str, object]:
    part = _part(section, dataset, "train", "val")
    image, labels = join(dataset.path, "im"), join(dataset.path, f"mito-{part}-v2")
    # The labels cover a part of the slices: the numbers in the names tell which.
    first = _first_number(labels, options) - _first_number(image, options)
    return _mitochondria(section, image, LabelSection(url=labels, offset_zyx=(first, 0, 0)), _MITOEM_NM)


def _cremi(section: VolumeSection, dataset: DatasetSection, options: StorageOptions) -> dict[str, object]:
    image_url = f"{dataset.path}:volumes/raw"
    image = open_volume(image_url, options, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    labels = {}
    for name, label in section.labels.items():
        if label not in ("neuron_ids", "clefts"):
            raise ConfigError(f"volume {section.name}: cremi has no labels {label!r}; it has neuron_ids and clefts")
        url = f"{dataset.path}:volumes/labels/{label}"
        truth = open_volume(url, options, kind="labels", voxel_size_zyx_nm=section.voxel_size_zyx_nm)
        background = _NO_CLEFT if label == "clefts" else 0
        labels[name] = LabelSection(url=url, background=background, offset_zyx=_offset(section, image, truth))
    return {"image": image_url, "labels": labels}


def _openorganelle(section: VolumeSection, dataset: DatasetSection, options: StorageOptions) -> dict[str, object]:
    if dataset.image is None:
        raise ConfigError(f"volume {section.name}: dataset.image names the image below {dataset.path}: em/fibsem-uint8")
    image_url = join(dataset.path, dataset.image)
    labels, level = {}, section.level
    for name, label in section.labels.items():
        url = join(dataset.path, "labels", str(label))
        truth = open_volume(url, options, kind="labels")
        level = _level_like(section, open_volume(image_url, options), truth)
        image = open_volume(image_url, options, level=level)
        labels[name] = LabelSection(url=url, offset_zyx=_offset(section, image, truth))
    return {"image": image_url, "labels": labels, "level": level}


_KINDS: dict[str, Callable[[VolumeSection, DatasetSection, StorageOptions], dict[str, object]]] = {
    "lucchi": _lucchi,
    "lucchi++": _casser,
    "kasthuri++": _casser,
    "mitoem": _mitoem,
    "cremi": _cremi,
    "openorganelle": _openorganelle,
}


def _part(section: VolumeSection, dataset: DatasetSection, *known: str) -> str:
    if dataset.part not in known:
        raise ConfigError(
            f"volume {section.name}: {dataset.kind} has the parts {' and '.join(known)}; dataset.part is "
            f"{dataset.part!r}"
        )
    return str(dataset.part)


def _mitochondria(
    section: VolumeSection, image: str, labels: LabelSection, size_nm: tuple[float, float, float]
) -> dict[str, object]:
    """Give the parts of a volume that has mitochondria alone."""
    for label in section.labels.values():
        if label != _MITOCHONDRIA:
            raise ConfigError(f"volume {section.name}: there are no labels {label!r}; there are {_MITOCHONDRIA}")
    size = section.voxel_size_zyx_nm or size_nm
    return {"image": image, "labels": dict.fromkeys(section.labels, labels), "voxel_size_zyx_nm": size}


def _first_number(folder: str, options: StorageOptions) -> int:
    """Read the number in the name of a folder's first slice."""
    fs, path = file_system(folder, options)
    files = list_slices(fs, path)
    if not files:
        raise VolumeNotFound(f"{folder} holds no .png, .tif or .tiff slices")
    numbers = re.findall(r"[0-9]+", files[0][0].rpartition("/")[2])
    if not numbers:
        raise ConfigError(f"{files[0][0]}: the names of the slices hold no number, so their place is unknown")
    return int(numbers[-1])


def _offset(section: VolumeSection, image: Volume, labels: Volume) -> tuple[int, int, int]:
    """Give where labels begin in the image, voxels.

    Raises:
        ConfigError: they lie between voxels, or have another voxel size.
    """
    size, other = image.require_voxel_size(), labels.require_voxel_size()
    if not _is_same(size, other):
        raise ConfigError(
            f"volume {section.name}: labels {labels.info.url} have voxels of {other} nm, the image {size} nm (z, y, x)"
        )
    nowhere = (0.0, 0.0, 0.0)
    start, begin = image.info.origin_zyx_nm or nowhere, labels.info.origin_zyx_nm or nowhere
    steps = [(b - a) / nm for a, b, nm in zip(start, begin, size, strict=True)]
    if any(abs(step - round(step)) > 0.01 for step in steps):
        raise ConfigError(
            f"volume {section.name}: labels {labels.info.url} begin at {begin} nm, the image at {start} nm: that is no "
            f"whole number of voxels of {size} nm"
        )
    return (round(steps[0]), round(steps[1]), round(steps[2]))


def _level_like(section: VolumeSection, image: Volume, labels: Volume) -> int:
    """Find the image's level that has the labels' voxel size."""
    wanted = labels.require_voxel_size()
    sizes = [level.voxel_size_zyx_nm for level in image.info.levels]
    for index, size in enumerate(sizes):
        if size is not None and _is_same(size, wanted):
            return index
    raise ConfigError(
        f"volume {section.name}: labels {labels.info.url} have voxels of {wanted} nm; the levels of {image.info.url} "
        f"have {', '.join(map(str, sizes))}"
    )


def _is_same(one: tuple[float, float, float], other: tuple[float, float, float]) -> bool:
    return all(abs(a - b) <= _SAME_FRACTION * b for a, b in zip(one, other, strict=True))
