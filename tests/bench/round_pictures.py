"""Pseudo-labels and signed distances of a dual-track training, round by round, side by side.

    python tests/bench/round_pictures.py RUN_DIR VOLUME IMAGE PICTURE.png [--class mitochondrion] [--slices 3]

RUN_DIR is that of `sam4em train-spatial`, VOLUME one of its volumes, IMAGE the url of its image. Rows are slices
evenly spread over the volume; columns the image and, per round, its labels (red; blue is not learnt from) and, from
round 1 on, its signed distances (blue outside, red inside, white the surface). PICTURE must lie outside the repository,
since some data may not be shown there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from pipeline.geometry import Box
from pipeline.storage import open_volume
from pipeline.training.round_store import read_layer
from sam4em_core.training.data import UNLABELLED

if TYPE_CHECKING:
    import numpy.typing as npt

    from pipeline.storage import VolumeInfo

REPOSITORY = Path(__file__).resolve().parents[2]
_GAP, _HEAD = 6, 18
_OPACITY = 0.45
_ZERO = 127.5
"""Where a stored distance changes its sign."""


def main() -> int:
    """Draw the rounds of one volume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("volume")
    parser.add_argument("image")
    parser.add_argument("picture", type=Path)
    parser.add_argument("--class", dest="class_name", default="mitochondrion")
    parser.add_argument("--slices", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.picture.resolve().is_relative_to(REPOSITORY):
        sys.stderr.write(f"{arguments.picture} lies inside the repository; choose a place outside\n")
        return 2
    places = sorted(arguments.run_dir.glob(f"round-*/{arguments.volume}"))
    if not places:
        sys.stderr.write(f"{arguments.run_dir} holds no round of a volume {arguments.volume!r}\n")
        return 2
    columns: dict[str, npt.NDArray[np.uint8] | None] = {"image": None, **dict(columns_of(places, arguments.class_name))}
    labels = open_volume(str(places[0] / f"labels-{arguments.class_name}.zarr"), kind="labels").info
    depth = labels.shape[0]
    shown = [(2 * index + 1) * depth // (2 * arguments.slices) for index in range(arguments.slices)]
    grey = [image_slice(arguments.image, labels, z) for z in shown]
    drawn(shown, grey, columns).save(arguments.picture)
    sys.stdout.write(f"{arguments.picture}\n")
    return 0


def columns_of(places: list[Path], class_name: str) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    """Give title and array (z, y, x) of every column."""
    found = []
    for place in places:
        name = place.parent.name
        found.append((f"{name} labels", read_layer(place, "labels", class_name)))
        if (place / f"distance-{class_name}.zarr").exists():
            found.append((f"{name} distance", read_layer(place, "distance", class_name)))
    return found


def image_slice(url: str, labels: VolumeInfo, z: int) -> npt.NDArray[np.uint8]:
    """Read the image in the plane of a slice of the labels, at their size (y, x).

    Raises:
        ValueError: one of both does not say how large its voxels are.
    """
    volume = open_volume(url, kind="image")
    size, own = labels.voxel_size_zyx_nm, volume.info.voxel_size_zyx_nm
    if size is None or own is None:
        raise ValueError(f"{labels.url} and {url}: both must state their voxel size")
    corner, start = labels.origin_zyx_nm or (0.0,) * 3, volume.info.origin_zyx_nm or (0.0,) * 3
    z_low, y_low, x_low = (round((a - b) / step) for a, b, step in zip(corner, start, own, strict=True))
    _, y_extent, x_extent = (round(n * a / b) for n, a, b in zip(labels.shape, size, own, strict=True))
    first = z_low + int((z + 0.5) * size[0] / own[0])
    plane = volume.read(Box((first, y_low, x_low), (first + 1, y_low + y_extent, x_low + x_extent)))[0]
    height, width = labels.shape[1:]
    return np.asarray(Image.fromarray(plane.astype(np.uint8)).resize((width, height), Image.Resampling.BOX))


def drawn(
    shown: list[int], grey: list[npt.NDArray[np.uint8]], columns: dict[str, npt.NDArray[np.uint8] | None]
) -> Image.Image:
    """Lay out slices as rows, and rounds as columns."""
    height, width = grey[0].shape
    sheet = Image.new("RGB", (len(columns) * (width + _GAP), len(shown) * (height + _GAP) + _HEAD), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (title, layer) in enumerate(columns.items()):
        left = column * (width + _GAP)
        pen.text((left + 4, 2), title, fill="black")
        for line, (z, image) in enumerate(zip(shown, grey, strict=True)):
            top = _HEAD + line * (height + _GAP)
            sheet.paste(Image.fromarray(painted(image, layer, z, title)), (left, top))
            if column == 0:
                pen.text((4, top + 2), f"z {z}", fill="yellow")
    return sheet


def painted(
    image_yx: npt.NDArray[np.uint8], layer: npt.NDArray[np.uint8] | None, z: int, title: str
) -> npt.NDArray[np.uint8]:
    """Give one panel, (y, x, 3)."""
    if layer is not None and title.endswith("distance"):
        return signed_colors(layer[z])
    panel = np.repeat(image_yx[..., None], 3, axis=2).astype(np.float32)
    if layer is not None:
        for value, color in ((1, (230, 60, 60)), (UNLABELLED, (60, 120, 240))):
            mask = layer[z] == value
            panel[mask] = (1 - _OPACITY) * panel[mask] + _OPACITY * np.array(color, dtype=np.float32)
    return panel.astype(np.uint8)


def signed_colors(distance_yx: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Blue outside, red inside, white at the surface."""
    share = (distance_yx.astype(np.float32) - _ZERO) / _ZERO
    fade = np.abs(share)[..., None]
    target = np.where(share[..., None] > 0, np.array([200.0, 30.0, 30.0]), np.array([30.0, 60.0, 200.0]))
    return (255.0 * (1 - fade) + target * fade).astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
