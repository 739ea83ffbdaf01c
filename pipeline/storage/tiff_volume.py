"""Multi-page TIFF: one page per slice, classic or BigTIFF, ImageJ and OME metadata."""

from __future__ import annotations

import re
import threading
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

import numpy as np
import tifffile

from pipeline.errors import CorruptData, VolumeFormatError, VolumeNotFound
from pipeline.geometry import Box, Vector
from pipeline.storage.axes import AxisOrder, axis_order, nanometers_per_unit
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

# tifffile calls a plain run of pages I, Q or P; OME and ImageJ say Z, T or C.
_PAGE_AXES = "ZIQPTC"
# Source: TIFF 6.0, ResolutionUnit: 2 inch, 3 centimeter.
_TIFF_UNITS = {2: "inch", 3: "centimeter"}
# Source: TIFF 6.0 section 2 and BigTIFF, bytes per value of a field type; those of one byte are left out.
_TIFF_TYPE_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class TiffVolume(StoredVolume):
    """One TIFF file; stored pages are read row by row, compressed pages whole."""

    def __init__(self, info: VolumeInfo, metadata: bytes, tiff: tifffile.TiffFile, order: AxisOrder) -> None:
        """Wrap an open file."""
        super().__init__(info, metadata)
        self._tiff = tiff
        self._series = tiff.series[0]
        self._order = order
        self._lock = threading.Lock()

    def _read(self, box: Box) -> VoxelArray:
        """Read slice by slice; one thread at a time, since the file has one position."""
        voxels = np.empty(box.shape, self._info.dtype)
        with self._lock:
            for index, z in enumerate(range(box.start[0], box.stop[0])):
                voxels[index] = self._rows(z, box)
        return voxels

    def _rows(self, z: int, box: Box) -> VoxelArray:
        """Read the part of one slice that lies in the box."""
        _, rows, columns = box.slices
        offset = self._series.dataoffset
        if offset is None:
            page = self._series.pages[z]
            if page is None:
                raise CorruptData(f"page {z} of {self._info.url} is missing")
            return np.asarray(page.asarray())[rows, columns]
        return self._stored_rows(int(offset), z, box)[:, columns]

    def _stored_rows(self, offset: int, z: int, box: Box) -> VoxelArray:
        """Read whole rows of an uncompressed, contiguous series."""
        _, height, width = self._info.shape_zyx
        dtype = np.dtype(self._series.dtype).newbyteorder(self._tiff.byteorder)
        num_bytes = box.shape[1] * width * dtype.itemsize
        handle = self._tiff.filehandle
        handle.seek(offset + (z * height + box.start[1]) * width * dtype.itemsize)
        data = handle.read(num_bytes)
        if len(data) != num_bytes:
            raise CorruptData(f"slice {z} of {self._info.url} is cut short: {len(data)} of {num_bytes} bytes")
        return np.frombuffer(data, dtype).reshape(box.shape[1], width)


def open_tiff_volume(
    url: str, options: StorageOptions, *, voxel_size_zyx_nm: Nanometers | None, level: int, kind: Kind
) -> TiffVolume:
    """Open the first series of a TIFF file.

    Raises:
        VolumeNotFound: no such file.
        VolumeFormatError: not a TIFF, colors, or fewer than three axes.
    """
    only_level(level, url)
    fs, path = file_system(url, options)
    with store_faults(f"opening {url}", contents=VolumeFormatError):
        if not fs.exists(path):
            raise VolumeNotFound(f"{url} does not exist")
        with fs.open(path, "rb") as file:
            refuse_cut_file(file, url)
        tiff = tifffile.TiffFile(fs.open(path, "rb"))
        if not tiff.series:
            raise VolumeFormatError(f"{url} holds no pages")
        return _described(url, tiff, voxel_size_zyx_nm, kind, int(fs.size(path) or 0))


def refuse_cut_file(file: BinaryIO, url: str) -> None:
    """Follow the chain of pages to its end; tifffile takes a broken chain for a shorter file.

    Source: TIFF 6.0 section 2, and the BigTIFF design (offsets of 8 bytes, counts of 8, entries of 20).

    Raises:
        VolumeFormatError: not a TIFF.
        CorruptData: a page or a value of the first page lies beyond the end of the file.
    """
    num_bytes = file.seek(0, 2)
    file.seek(0)
    header = file.read(8)
    order: Literal["little", "big"] = "big" if header[:2] == b"MM" else "little"
    magic = int.from_bytes(header[2:4], order)
    if header[:2] not in (b"MM", b"II") or magic not in (42, 43):
        raise VolumeFormatError(f"{url} is not a TIFF file: it begins with {header[:4]!r}")
    big = magic == 43
    count_size, entry_size, offset_size = (8, 20, 8) if big else (2, 12, 4)
    offset = int.from_bytes(file.read(8) if big else header[4:8], order)
    is_first, last = True, 0
    while offset:
        file.seek(offset)
        count = int.from_bytes(file.read(count_size), order)
        end = offset + count_size + count * entry_size + offset_size
        if end > num_bytes or offset == last:
            raise CorruptData(f"{url} is cut short: a page at byte {offset} does not end before byte {num_bytes}")
        entries = file.read(count * entry_size + offset_size)
        if is_first and _values_end(entries[:-offset_size], entry_size, order) > num_bytes:
            raise CorruptData(f"{url} is cut short: values of its first page lie beyond byte {num_bytes}")
        offset, last, is_first = int.from_bytes(entries[-offset_size:], order), offset, False


def _values_end(entries: bytes, entry_size: int, order: Literal["little", "big"]) -> int:
    """Give the byte after the last value that the entries of one page point to."""
    size = (entry_size - 4) // 2
    end = 0
    for start in range(0, len(entries), entry_size):
        kind = int.from_bytes(entries[start + 2 : start + 4], order)
        count = int.from_bytes(entries[start + 4 : start + 4 + size], order)
        num_bytes = count * _TIFF_TYPE_BYTES.get(kind, 1)
        if num_bytes > size:
            value = int.from_bytes(entries[start + 4 + size : start + entry_size], order)
            end = max(end, value + num_bytes)
    return end


def _described(
    url: str, tiff: tifffile.TiffFile, voxel_size: Nanometers | None, kind: Kind, num_bytes: int
) -> TiffVolume:
    """Check and describe an open file."""
    series = tiff.series[0]
    order = _axis_order(series.axes, series.shape, url)
    shape: Vector = order.pick(order.shape)
    size = checked_voxel_size(voxel_size or _voxel_size(tiff), url)
    info = VolumeInfo(
        url=url,
        format="tiff",
        shape_zyx=shape,
        dtype=readable_dtype(np.dtype(series.dtype), kind, url),
        chunk_zyx=(1, shape[1], shape[2]),
        voxel_size_zyx_nm=size,
        levels=(LevelInfo("", shape, size),),
        axes=order.names,
    )
    return TiffVolume(info, repr((num_bytes, series.axes, series.dataoffset)).encode(), tiff, order)


def _axis_order(names: str, shape: tuple[int, ...], url: str) -> AxisOrder:
    """Read tifffile's axes; the one long page axis is z whatever its letter."""
    kept = [(name, extent) for name, extent in zip(names, shape, strict=True) if extent != 1 or name in "ZYX"]
    if "Z" not in [name for name, _ in kept]:
        pages = [position for position, (name, _) in enumerate(kept) if name in _PAGE_AXES]
        if len(pages) == 1:
            kept[pages[0]] = ("Z", kept[pages[0]][1])
        elif not pages and [name for name, _ in kept] == ["Y", "X"]:
            kept.insert(0, ("Z", 1))
    order = axis_order([name for name, _ in kept], [extent for _, extent in kept], url)
    if order.names != ("z", "y", "x"):
        raise VolumeFormatError(f"{url} has axes {names}; pages must be z slices of y, x")
    return order


def _voxel_size(tiff: tifffile.TiffFile) -> tuple[float, ...] | None:
    """Find the voxel size in OME-XML or ImageJ metadata, in nm."""
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_voxel_size(tiff.ome_metadata)
    if tiff.is_imagej and tiff.imagej_metadata:
        return _imagej_voxel_size(tiff)
    return None


def _ome_voxel_size(xml: str) -> tuple[float, ...] | None:
    """Read PhysicalSizeZ, Y, X of OME-XML; their default unit is the micrometer."""
    if re.search(r"<!(DOCTYPE|ENTITY)", xml):
        return None
    try:
        root = ElementTree.fromstring(xml)  # noqa: S314 - entities are refused above
    except ElementTree.ParseError:
        return None
    pixels = next((element for element in root.iter() if element.tag.endswith("}Pixels")), None)
    if pixels is None:
        return None
    sizes = []
    for axis in "ZYX":
        value = pixels.get(f"PhysicalSize{axis}")
        unit = nanometers_per_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        if value is None or unit is None:
            return None
        sizes.append(float(value) * unit)
    return tuple(sizes)


def _imagej_voxel_size(tiff: tifffile.TiffFile) -> tuple[float, ...] | None:
    """Read `spacing` and the resolution tags, both in ImageJ's `unit`."""
    metadata = tiff.imagej_metadata or {}
    tags: Any = tiff.pages[0].tags  # type: ignore[union-attr]
    unit = nanometers_per_unit(metadata.get("unit"))
    if unit is None and "ResolutionUnit" in tags:
        unit = nanometers_per_unit(_TIFF_UNITS.get(int(tags["ResolutionUnit"].value)))
    if unit is None or "spacing" not in metadata:
        return None
    sizes = [float(metadata["spacing"]) * unit]
    for name in ("YResolution", "XResolution"):
        if name not in tags:
            return None
        pixels, length = tags[name].value
        if not pixels or not length:
            return None
        sizes.append(unit * length / pixels)
    return tuple(sizes)


def read_tiff_slice(handle: BinaryIO) -> VoxelArray:
    """Read a TIFF file that is one slice, shape (y, x) unless it has colors."""
    with tifffile.TiffFile(handle) as tiff:
        return np.asarray(tiff.series[0].asarray())
