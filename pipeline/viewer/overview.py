"""One PNG of a volume: the xy, xz and yz slices through its middle, beside the same slices with the labels on top.

Everything is drawn in nm: image and labels may differ in voxel size and origin, and a voxel that is deeper than wide
is drawn so. Only the voxels of the three slices are read, and of a large volume only a window around the middle.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import UserError, WorldError
from pipeline.geometry.box import Box
from pipeline.viewer.colors import color_of
from pipeline.viewer.reader import BoxReader, VectorNm

Pixels = npt.NDArray[np.uint8]

# Longest side of one slice in the picture.
SLICE_PIXELS = 640
# A slice reads at most this many voxels along an axis; of a larger volume the middle is shown.
WINDOW_VOXELS = 2048
CAPTION_PIXELS = 20
GAP_PIXELS = 8
OVERLAY_ALPHA = 0.45
JPEG_QUALITY = 88
# Percentiles drawn black and white.
GREY_PERCENTILES = (0.5, 99.5)
PAPER = 255
INK = 32
AXES = "zyx"
# Each plane: axis down, axis across, axis that is cut.
PLANES = ((1, 2, 0), (0, 2, 1), (0, 1, 2))


@dataclass(frozen=True)
class Window:
    """The region that is drawn."""

    start_zyx_nm: VectorNm
    size_zyx_nm: VectorNm
    pixel_nm: float

    def pixel_centers_nm(self, axis: int) -> npt.NDArray[np.float64]:
        """Middle of every pixel along an axis."""
        num_pixels = max(1, round(self.size_zyx_nm[axis] / self.pixel_nm))
        centers = np.arange(num_pixels, dtype=np.float64) + 0.5
        return np.asarray(self.start_zyx_nm[axis] + centers * (self.size_zyx_nm[axis] / num_pixels))

    def middle_nm(self, axis: int) -> float:
        """Where the slice across this axis is cut."""
        return self.start_zyx_nm[axis] + self.size_zyx_nm[axis] / 2


def draw_overview(image: BoxReader, labels: BoxReader, path: Path | str) -> Path:
    """Draw the middle slices of an image, alone and with its labels, into a PNG.

    The region is the labels', at most `WINDOW_VOXELS` of them per axis around the middle. Labels have the colors
    that Neuroglancer gives them, and an outline.

    Args:
        image: grey values of any real data type.
        labels: unsigned ids, 0 is background. May cover only a part of the image.
        path: file to write; its folder exists.

    Returns:
        The path written.

    Raises:
        UserError: an empty volume, or labels that are not unsigned integers.
        WorldError: the file cannot be written.
    """
    if labels.dtype.kind != "u":
        raise UserError(f"drawing an overview: the labels are {labels.dtype}; unsigned integers would be right")
    window = _window_of(labels)
    rows = [_draw_plane(image, labels, window, plane) for plane in PLANES]
    height = sum(row.height for row in rows) + GAP_PIXELS * (len(rows) + 1)
    picture = Image.new("RGB", (max(row.width for row in rows) + 2 * GAP_PIXELS, height), (PAPER,) * 3)
    top = GAP_PIXELS
    for row in rows:
        picture.paste(row, (GAP_PIXELS, top))
        top += row.height + GAP_PIXELS
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise WorldError(f"writing the overview {path}: {error}") from error
    return Path(path)


def draw_planes(image: BoxReader, labels: BoxReader) -> list[tuple[str, bytes]]:
    """Draw the middle slices with their labels on top, then the same slices alone.

    Args:
        image: grey values of any real data type.
        labels: unsigned ids, 0 is background. May cover only a part of the image.

    Returns:
        Six captions and JPEG files: xy, xz, yz with labels, then without.
    """
    window = _window_of(labels)
    with_labels, alone = [], []
    for plane in PLANES:
        grey = to_grey(sample(image, window, plane))
        plain = np.repeat(grey[..., None], 3, axis=-1)
        caption = _caption(labels, window, plane)
        with_labels.append((caption, _jpeg(overlay(plain, sample(labels, window, plane)))))
        alone.append((f"{caption.partition(',')[0]}, image alone", _jpeg(plain)))
    return with_labels + alone


def _jpeg(pixels: Pixels) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="JPEG", quality=JPEG_QUALITY)
    return data.getvalue()


def _window_of(labels: BoxReader) -> Window:
    shown = [min(length, WINDOW_VOXELS) for length in labels.shape_zyx]
    starts = [(length - part) // 2 for length, part in zip(labels.shape_zyx, shown, strict=True)]
    z0, y0, x0 = (
        origin + start * size
        for origin, start, size in zip(labels.origin_zyx_nm, starts, labels.voxel_size_zyx_nm, strict=True)
    )
    z, y, x = (part * size for part, size in zip(shown, labels.voxel_size_zyx_nm, strict=True))
    return Window((z0, y0, x0), (z, y, x), max(z, y, x) / SLICE_PIXELS)


def _draw_plane(image: BoxReader, labels: BoxReader, window: Window, plane: tuple[int, int, int]) -> Image.Image:
    """Draw one row: caption, image, image with labels."""
    grey = to_grey(sample(image, window, plane))
    ids = sample(labels, window, plane)
    plain = np.repeat(grey[..., None], 3, axis=-1)
    pair = (Image.fromarray(plain), Image.fromarray(overlay(plain, ids)))
    width, height = pair[0].size
    row = Image.new("RGB", (2 * width + GAP_PIXELS, height + CAPTION_PIXELS), (PAPER,) * 3)
    row.paste(pair[0], (0, CAPTION_PIXELS))
    row.paste(pair[1], (width + GAP_PIXELS, CAPTION_PIXELS))
    ImageDraw.Draw(row).text((0, 2), _caption(labels, window, plane), fill=(INK,) * 3, font=ImageFont.load_default(13))
    return row


def _caption(labels: BoxReader, window: Window, plane: tuple[int, int, int]) -> str:
    down, across, cut = plane
    voxel = int((window.middle_nm(cut) - labels.origin_zyx_nm[cut]) / labels.voxel_size_zyx_nm[cut])
    across_um, down_um = window.size_zyx_nm[across] / 1000, window.size_zyx_nm[down] / 1000
    return f"{AXES[across]}{AXES[down]} at {AXES[cut]} = {voxel},  {across_um:.3g} x {down_um:.3g} um"


def sample(reader: BoxReader, window: Window, plane: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Read the voxel under each pixel of a plane, (down, across); 0 outside the volume."""
    down, across, cut = plane
    rows = _voxels(reader, down, window.pixel_centers_nm(down))
    columns = _voxels(reader, across, window.pixel_centers_nm(across))
    cuts = _voxels(reader, cut, np.array([window.middle_nm(cut)]))
    kept = [indices[inside] for indices, inside in (rows, columns, cuts)]
    if any(indices.size == 0 for indices in kept):
        return np.zeros((rows[0].size, columns[0].size), dtype=reader.dtype)
    ranges = {axis: (int(indices[0]), int(indices[-1]) + 1) for axis, indices in zip(plane, kept, strict=True)}
    (z0, z1), (y0, y1), (x0, x1) = ranges[0], ranges[1], ranges[2]
    values_zyx = reader.read(Box((z0, y0, x0), (z1, y1, x1)))
    values = values_zyx.transpose(plane)[:, :, 0]  # (down, across), since the cut axis has one voxel
    result = np.zeros((rows[0].size, columns[0].size), dtype=reader.dtype)
    result[np.ix_(rows[1], columns[1])] = values[np.ix_(kept[0] - kept[0][0], kept[1] - kept[1][0])]
    return result


def _voxels(
    reader: BoxReader, axis: int, positions_nm: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the voxel index at each position, and whether it lies inside the volume."""
    indices = np.floor((positions_nm - reader.origin_zyx_nm[axis]) / reader.voxel_size_zyx_nm[axis]).astype(np.int64)
    return indices, (indices >= 0) & (indices < reader.shape_zyx[axis])


def to_grey(values: npt.NDArray[Any]) -> Pixels:
    """Stretch grey values between two percentiles."""
    low, high = np.percentile(values, GREY_PERCENTILES)
    scaled = (values.astype(np.float64) - low) / max(high - low, 1e-9)
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), dtype=np.uint8)


def overlay(picture: Pixels, ids: npt.NDArray[np.unsignedinteger]) -> Pixels:
    """Lay the color of each id over a picture, with an outline in the full color.

    Args:
        picture: red, green, blue, shape (rows, columns, 3).
        ids: unsigned ids, shape (rows, columns); 0 leaves the picture as it is.
    """
    colors = color_of(ids)
    mixed = np.rint(picture * (1 - OVERLAY_ALPHA) + colors * OVERLAY_ALPHA).astype(np.uint8)
    edge = np.zeros(ids.shape, dtype=bool)
    edge[:-1] |= ids[:-1] != ids[1:]
    edge[:, :-1] |= ids[:, :-1] != ids[:, 1:]
    edge[1:] |= ids[1:] != ids[:-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    mixed[edge] = colors[edge]
    mixed[ids == 0] = picture[ids == 0]
    return mixed
