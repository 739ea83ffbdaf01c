"""Three report slices of a set side by side: image, truth, and what methods made of it.

    python tests/bench/accuracy/pictures.py SET FOLDER [--labels 100] [--seed 0] [--methods none,memory,unet3d]

Reads the probabilities that the rows left in the work folder; FOLDER must lie outside the repository, since some data
may not be shown there. Masks are drawn at the threshold that the row chose; one color per class.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench import RESULTS, WORK
from PIL import Image, ImageDraw
from rows import METHODS, Row
from sets import REPOSITORY, SETS, BenchSet, load_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

METHODS_SHOWN = "none,memory,unet3d"
NUM_SLICES = 3
_COLORS = ((230, 60, 60), (60, 160, 240), (90, 200, 90))
_OPACITY = 0.45
_GAP = 6
_HEAD = 18


def main() -> int:
    """Draw one set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", default=METHODS_SHOWN)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=WORK)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if folder.is_relative_to(REPOSITORY):
        sys.stderr.write(f"{folder} lies inside the repository; choose a folder outside\n")
        return 2
    shown = arguments.methods.split(",")
    if unknown := [name for name in shown if name not in METHODS]:
        sys.stderr.write(f"no such method: {', '.join(unknown)}; there are {', '.join(METHODS)}\n")
        return 2
    data = load_set(arguments.set, 100, arguments.work / "sets")
    rows = [Row("S", arguments.set, method, arguments.labels, arguments.seed) for method in shown]
    masks = {row.method: masks_of(row, data, arguments.results, arguments.work) for row in rows}
    methods = "" if arguments.methods == METHODS_SHOWN else f"_{'-'.join(shown)}"
    path = folder / f"{arguments.set}_{arguments.labels:03d}_s{arguments.seed}{methods}.png"
    folder.mkdir(parents=True, exist_ok=True)
    drawn(data, masks).save(path)
    sys.stdout.write(f"{path}\n")
    return 0


def masks_of(row: Row, data: BenchSet, results: Path, work: Path) -> npt.NDArray[np.bool_] | None:
    """Give the masks (class, z, y, x) of a row at its thresholds; None where it was not run."""
    result_path, stored_path = results / f"{row.name}.json", work / row.name / "report.npz"
    if not result_path.exists() or not stored_path.exists():
        return None
    classes: dict[str, Any] = json.loads(result_path.read_text())["classes"]
    with np.load(stored_path) as stored:
        probability = stored["probability_czyx"]
    thresholds = [255 * classes[item.name]["choose"]["threshold"] for item in data.spec.classes]
    return np.stack([channel >= limit for channel, limit in zip(probability, thresholds, strict=True)])


def shown_slices(truth_czyx: npt.NDArray[np.uint8], count: int = NUM_SLICES) -> tuple[int, ...]:
    """Choose slices evenly spread over those that show every class, or over all where none does."""
    every = np.flatnonzero((truth_czyx == 1).any(axis=(2, 3)).all(axis=0))
    slices = every if len(every) else np.arange(truth_czyx.shape[1])
    return tuple(int(slices[(2 * index + 1) * len(slices) // (2 * count)]) for index in range(count))


def drawn(data: BenchSet, masks: dict[str, npt.NDArray[np.bool_] | None]) -> Image.Image:
    """Lay out slices as rows, and image, truth and methods as columns."""
    part = data.report
    image = part.volume.image_zyx[slice(*part.span)].astype(np.uint8)
    truth = part.truth_czyx == 1
    columns: dict[str, npt.NDArray[np.bool_] | None] = {"image": np.zeros_like(truth), "truth": truth, **masks}
    slices = shown_slices(part.truth_czyx)
    height, width = image.shape[1:]
    size = (len(columns) * (width + _GAP), len(slices) * (height + _GAP) + _HEAD)
    sheet = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(sheet)
    for column, (name, mask) in enumerate(columns.items()):
        left = column * (width + _GAP)
        pen.text((left + 4, 2), name if mask is not None else f"{name}: not run", fill="black")
        for line, z in enumerate(slices):
            shown = painted(image[z], () if mask is None else mask[:, z])
            sheet.paste(Image.fromarray(shown), (left, _HEAD + line * (height + _GAP)))
            if column == 0:
                pen.text((4, _HEAD + line * (height + _GAP) + 2), f"z {z + part.span[0]}", fill="yellow")
    return sheet


def painted(
    image_yx: npt.NDArray[np.uint8], masks_yx: Sequence[npt.NDArray[np.bool_]] | npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Lay the masks over a slice, one color per class; shape (y, x, 3)."""
    result = np.repeat(image_yx[..., None], 3, axis=2).astype(np.float32)
    for mask, color in zip(masks_yx, _COLORS, strict=False):
        result[mask] = (1 - _OPACITY) * result[mask] + _OPACITY * np.array(color, dtype=np.float32)
    return result.astype(np.uint8)


if __name__ == "__main__":
    raise SystemExit(main())
