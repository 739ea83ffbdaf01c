"""One PNG of a face between two blocks: what each of them labelled around it, and where they disagree.

Two rows, one cut across the face and one along it, through the place where most voxels disagree; four panels each:
the image, the labels of the lower block, those of the upper block, and the voxels that differ. A line marks the face.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pipeline.viewer.overview import (
    AXES,
    CAPTION_PIXELS,
    GAP_PIXELS,
    INK,
    PAPER,
    Pixels,
    Window,
    overlay,
    sample,
    to_grey,
)
from pipeline.viewer.reader import BoxReader, VectorNm

# Longest side of a panel.
PANEL_PIXELS = 320
# Voxels of the image shown beyond the slab on both sides, and extent of a panel along the face.
AROUND_VOXELS = 24
ALONG_VOXELS = 192
# Side of the cells among which the one with the most disagreement is looked for.
CELL_VOXELS = 16
DIFFERENT = np.array([230, 30, 30], np.uint8)
FACE_LINE = (255, 210, 0)


@dataclass(frozen=True)
class Seam:
    """What two blocks say of the slab around their face; arrays of shape (z, y, x)."""

    lower_ids_zyx: npt.NDArray[np.uint64]
    """Ids by the lower block."""
    upper_ids_zyx: npt.NDArray[np.uint64]
    """Ids by the upper block."""
    is_different_zyx: npt.NDArray[np.bool_]
    """Where they disagree."""
    voxel_size_zyx_nm: VectorNm
    """Of the slab."""
    start_zyx_nm: VectorNm
    """Where the slab begins."""
    axis: int
    """Across the face: 0 z, 1 y, 2 x."""
    face: int
    """Index along `axis` of the upper block's first voxel."""


def draw_seam(image: BoxReader, seam: Seam, title: str) -> bytes:
    """Draw a face.

    Args:
        image: grey values, of any voxel size.
        seam: what the two blocks say.
        title: written above.

    Returns:
        A PNG.
    """
    place = _worst_place(seam)
    along = [axis for axis in range(3) if axis != seam.axis]
    planes = ((seam.axis, along[1], along[0]), (along[0], along[1], seam.axis))
    rows = [_draw_row(image, seam, place, plane) for plane in planes]
    width = max(row.width for row in rows) + 2 * GAP_PIXELS
    height = sum(row.height + GAP_PIXELS for row in rows) + CAPTION_PIXELS + GAP_PIXELS
    picture = Image.new("RGB", (width, height), (PAPER,) * 3)
    ImageDraw.Draw(picture).text((GAP_PIXELS, 4), title, fill=(INK,) * 3, font=ImageFont.load_default(13))
    top = CAPTION_PIXELS + GAP_PIXELS
    for row in rows:
        picture.paste(row, (GAP_PIXELS, top))
        top += row.height + GAP_PIXELS
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return data.getvalue()


def _worst_place(seam: Seam) -> tuple[int, int, int]:
    """Find the voxel through which the panels are cut: the middle of the worst cell, and there the worst layer."""
    counts = seam.is_different_zyx.sum(axis=seam.axis)
    padded = np.pad(counts, [(0, -extent % CELL_VOXELS) for extent in counts.shape])
    rows, columns = (extent // CELL_VOXELS for extent in padded.shape)
    cells = padded.reshape(rows, CELL_VOXELS, columns, CELL_VOXELS).sum(axis=(1, 3))
    row, column = (int(at) for at in np.unravel_index(int(cells.argmax()), cells.shape))
    inside = counts[row * CELL_VOXELS : (row + 1) * CELL_VOXELS, column * CELL_VOXELS : (column + 1) * CELL_VOXELS]
    at_row, at_column = (int(at) for at in np.unravel_index(int(inside.argmax()), inside.shape))
    first, second = row * CELL_VOXELS + at_row, column * CELL_VOXELS + at_column
    slices: list[Any] = [slice(None)] * 3
    along = [axis for axis in range(3) if axis != seam.axis]
    for axis, at in zip(along, (first, second), strict=True):
        slices[axis] = slice(max(0, at - CELL_VOXELS), at + CELL_VOXELS)
    layer = int(seam.is_different_zyx[tuple(slices)].sum(axis=(along[0], along[1])).argmax())
    place = [0, 0, 0]
    place[seam.axis], place[along[0]], place[along[1]] = layer, first, second
    return (place[0], place[1], place[2])


def _draw_row(image: BoxReader, seam: Seam, place: tuple[int, int, int], plane: tuple[int, int, int]) -> Image.Image:
    """Draw the four panels of one cut, with a caption."""
    window = _window(seam, place, plane)
    grey = to_grey(sample(image, window, plane))
    plain = np.repeat(grey[..., None], 3, axis=-1)
    parts = (seam.lower_ids_zyx, seam.upper_ids_zyx, seam.is_different_zyx.astype(np.uint8))
    lower, upper, different = (sample(_reader(seam, part), window, plane) for part in parts)
    marked = plain.copy()
    marked[different != 0] = DIFFERENT
    panels = [("image", plain), ("lower block", overlay(plain, lower)), ("upper block", overlay(plain, upper))]
    panels.append(("disagreement", marked))
    height, width = grey.shape
    row = Image.new("RGB", (4 * width + 3 * GAP_PIXELS, height + CAPTION_PIXELS), (PAPER,) * 3)
    pen = ImageDraw.Draw(row)
    for number, (name, pixels) in enumerate(panels):
        left = number * (width + GAP_PIXELS)
        row.paste(Image.fromarray(_with_face(pixels, seam, window, plane)), (left, CAPTION_PIXELS))
        caption = f"{name}, {AXES[plane[1]]}{AXES[plane[0]]}" if number else f"{name}, cut at {_at(seam, place, plane)}"
        pen.text((left, 2), caption, fill=(INK,) * 3, font=ImageFont.load_default(12))
    return row


def _at(seam: Seam, place: tuple[int, int, int], plane: tuple[int, int, int]) -> str:
    cut = plane[2]
    return f"{AXES[cut]} = {round(seam.start_zyx_nm[cut] / seam.voxel_size_zyx_nm[cut]) + place[cut]}"


def _window(seam: Seam, place: tuple[int, int, int], plane: tuple[int, int, int]) -> Window:
    """Give what a cut shows: around the place along the face, the slab and its surroundings across it."""
    start, size = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    for axis in plane:
        extent, voxel_nm = seam.is_different_zyx.shape[axis], seam.voxel_size_zyx_nm[axis]
        if axis == plane[2]:
            first, length = place[axis], 1
        elif axis == seam.axis:
            first, length = -AROUND_VOXELS, extent + 2 * AROUND_VOXELS
        else:
            length = min(extent, ALONG_VOXELS)
            first = min(max(0, place[axis] - length // 2), extent - length)
        start[axis], size[axis] = seam.start_zyx_nm[axis] + first * voxel_nm, length * voxel_nm
    pixel_nm = max(size[plane[0]], size[plane[1]]) / PANEL_PIXELS
    return Window((start[0], start[1], start[2]), (size[0], size[1], size[2]), pixel_nm)


def _reader(seam: Seam, values_zyx: npt.NDArray[Any]) -> BoxReader:
    return BoxReader.of_array(values_zyx, seam.voxel_size_zyx_nm, seam.start_zyx_nm)


def _with_face(pixels: Pixels, seam: Seam, window: Window, plane: tuple[int, int, int]) -> Pixels:
    """Draw the line of the face, where the cut crosses it."""
    if plane[0] != seam.axis:
        return pixels
    marked = pixels.copy()
    face_nm = seam.start_zyx_nm[seam.axis] + seam.face * seam.voxel_size_zyx_nm[seam.axis]
    centers = window.pixel_centers_nm(seam.axis)
    row = int(np.searchsorted(centers, face_nm))
    if 0 <= row < len(marked):
        marked[row, ::4] = FACE_LINE
    return marked
