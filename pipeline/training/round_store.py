"""What a round of a dual-track training knows of its volumes, as OME-Zarr that a viewer shows.

    VOLUME/probability-CLASS.zarr     uint8, 255 is 1
    VOLUME/disagreement-CLASS.zarr    uint8, 1 where the two tracks disagree
    VOLUME/labels-CLASS.zarr          labels: 0, 1; 255 is not learnt from
    VOLUME/distance-CLASS.zarr        uint8, from 128 on inside; from round 1 on
    VOLUME/facts.json                 thresholds, agreement per slice, slices left out

A folder is written under another name and moved to its place when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreFull
from pipeline.geometry import Box
from pipeline.storage import ImageSpec, ImageWriter, open_volume

if TYPE_CHECKING:
    from sam4em_core.training.subjects import Subject

FACTS_FILE: Final = "facts.json"
LABELS: Final = "labels"
_CHUNK: Final = (32, 128, 128)


class OmeZarrRounds:
    """The store of a dual-track training: see `sam4em_core.training.rounds.RoundStore`."""

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = tuple(classes)

    def save(
        self, place: Path, layers: Mapping[str, NDArray[np.uint8]], subject: Subject, facts: Mapping[str, Any]
    ) -> None:
        """Write the layers of a volume, all or nothing.

        Args:
            place: the volume's folder in the round.
            layers: name -> array (classes, z, y, x).
            subject: the volume, for its voxel size and its place in the image.
            facts: plain values that go with them.

        Raises:
            StoreFull: the disk is full or does not allow writing.
        """
        part = place.with_name(f".{place.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            for name, layer_czyx in layers.items():
                for class_name, layer_zyx in zip(self._classes, layer_czyx, strict=True):
                    _write(part / f"{name}-{class_name}.zarr", name, layer_zyx, subject)
            text = json.dumps({**facts, "layers": sorted(layers)}, indent=1)
            (part / FACTS_FILE).write_text(text, encoding="utf-8")
            part.rename(place)
        except OSError as error:
            raise StoreFull(f"writing the pseudo-labels {place}: {error}; free space, then resume") from error

    def load(self, place: Path) -> tuple[dict[str, NDArray[np.uint8]], dict[str, Any]] | None:
        """Read what `save` wrote; None where nothing whole lies.

        Raises:
            WorldError: it is there and cannot be read.
        """
        if not (place / FACTS_FILE).exists():
            return None
        facts = json.loads((place / FACTS_FILE).read_text(encoding="utf-8"))
        layers = {
            name: np.stack([read_layer(place, name, class_name) for class_name in self._classes])
            for name in facts.pop("layers")
        }
        return layers, facts


def read_layer(place: Path, name: str, class_name: str) -> NDArray[np.uint8]:
    """Read one layer of one class, (z, y, x).

    Raises:
        WorldError: it is not there or cannot be read.
    """
    volume = open_volume(str(place / f"{name}-{class_name}.zarr"), kind=_kind(name))
    layer: NDArray[np.uint8] = volume.read(Box.of_shape(volume.info.shape)).astype(np.uint8, copy=False)
    return layer


def _kind(name: str) -> Any:
    return "labels" if name == LABELS else "image"


def _write(path: Path, name: str, layer_zyx: NDArray[np.uint8], subject: Subject) -> None:
    size = subject.voxel_size_zyx_nm
    depth, height, width = layer_zyx.shape
    spec = ImageSpec(
        url=str(path),
        shape_zyx=(depth, height, width),
        dtype="uint8",
        voxel_size_zyx_nm=size,
        chunk_zyx=_CHUNK,
        kind=_kind(name),
        name=name,
        corner_zyx_nm=subject.corner_zyx_nm,
    )
    writer = ImageWriter(spec)
    writer.create()
    grid = writer.grid()
    for index in range(len(grid)):
        box = grid.box(index)
        writer.write(box, np.ascontiguousarray(layer_zyx[box.slices]))
