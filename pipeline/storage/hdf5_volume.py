"""HDF5: `file.h5:dataset`."""

from __future__ import annotations

import re
import threading
from typing import Any

import h5py
import numpy as np

from pipeline.errors import ConfigError, VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box, Vector
from pipeline.storage.axes import AxisOrder, axis_order, voxel_size_from_attributes
from pipeline.storage.faults import store_faults
from pipeline.storage.locations import file_system
from pipeline.storage.options import StorageOptions
from pipeline.storage.volume import (
    Kind,
    LevelInfo,
    Nanometers,
    StoredVolume,
    VolumeInfo,
    VoxelArray,
    checked_voxel_size,
    only_level,
    readable_dtype,
)

_ADDRESS = re.compile(r"^(?P<file>.+\.(?:h5|hdf5|hdf|he5))(?::(?P<dataset>[^:]*))?$", re.IGNORECASE)
# Names printed when a dataset is not found.
_MAX_NAMES = 20


def split_address(url: str) -> tuple[str, str] | None:
    """Split `file.h5:dataset`; None where the URL names no HDF5 file; dataset may be empty."""
    match = _ADDRESS.match(url)
    return None if match is None else (match["file"], (match["dataset"] or "").strip("/"))


class Hdf5Volume(StoredVolume):
    """One dataset."""

    def __init__(self, info: VolumeInfo, metadata: bytes, dataset: h5py.Dataset, order: AxisOrder) -> None:
        """Wrap an open dataset."""
        super().__init__(info, metadata)
        self._dataset = dataset
        self._order = order
        self._lock = threading.Lock()

    def _read(self, box: Box) -> VoxelArray:
        """Read through h5py, one thread at a time."""
        with self._lock:
            stored = self._dataset[self._order.selection(box)]
        voxels = self._order.to_zyx(np.asarray(stored))
        return voxels.view(np.uint8) if voxels.dtype.kind == "b" else voxels


def open_hdf5_volume(
    url: str, options: StorageOptions, *, voxel_size_zyx_nm: Nanometers | None, level: int, kind: Kind
) -> Hdf5Volume:
    """Open a dataset.

    Raises:
        ConfigError: the address names no dataset.
        VolumeNotFound: no such file or dataset.
        VolumeFormatError: not HDF5, or a dataset that is no volume.
    """
    only_level(level, url)
    address, name = split_address(url) or (url, "")
    fs, path = file_system(address, options)
    with store_faults(f"opening {address}", contents=VolumeFormatError):
        if not fs.exists(path):
            raise VolumeNotFound(f"{address} does not exist")
        file = h5py.File(fs.open(path, "rb"), "r")
        dataset = _dataset(file, name, address)
        return _described(url, dataset, voxel_size_zyx_nm, kind, int(fs.size(path) or 0))


def _dataset(file: h5py.File, name: str, address: str) -> h5py.Dataset:
    """Find the dataset or say which there are."""
    found = file.get(name) if name else None
    if isinstance(found, h5py.Dataset):
        return found
    names = _dataset_names(file)
    listed = ", ".join(names) or "none"
    if not name:
        raise ConfigError(
            f"{address} needs the name of a dataset, as in {address}:{(names or ['volume'])[0]}; it has {listed}"
        )
    raise VolumeNotFound(f"{address} has no dataset {name!r}; it has {listed}")


def _dataset_names(file: h5py.File) -> list[str]:
    """Name the first datasets of a file."""
    names: list[str] = []

    def visit(name: str, item: h5py.HLObject) -> bool | None:
        if isinstance(item, h5py.Dataset):
            names.append(name)
        return True if len(names) >= _MAX_NAMES else None

    file.visititems(visit)
    return names


def _described(
    url: str, dataset: h5py.Dataset, voxel_size: Nanometers | None, kind: Kind, num_bytes: int
) -> Hdf5Volume:
    """Check and describe a dataset."""
    attributes: dict[str, Any] = {key: dataset.attrs[key] for key in dataset.attrs}
    order = axis_order(None, dataset.shape, url)
    shape: Vector = order.pick(order.shape)
    size = checked_voxel_size(voxel_size or voxel_size_from_attributes(attributes), url)
    info = VolumeInfo(
        url=url,
        format="hdf5",
        shape_zyx=shape,
        dtype=readable_dtype(dataset.dtype, kind, url),
        chunk_zyx=order.pick(dataset.chunks) if dataset.chunks else (1, shape[1], shape[2]),
        voxel_size_zyx_nm=size,
        levels=(LevelInfo("", shape, size),),
        origin_zyx_nm=_origin(attributes),
        axes=order.names,
    )
    described = {key: np.asarray(value).tolist() for key, value in sorted(attributes.items())}
    return Hdf5Volume(info, repr((num_bytes, dataset.name, dataset.chunks, described)).encode(), dataset, order)


def _origin(attributes: dict[str, Any]) -> Nanometers | None:
    """Read the lower corner of the first voxel, nm. Source: `offset` of CREMI's padded volumes."""
    found = np.ravel(np.asarray(attributes.get("offset", ())))
    if found.size != 3 or found.dtype.kind not in "iuf":
        return None
    return float(found[0]), float(found[1]), float(found[2])
