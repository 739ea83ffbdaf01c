"""What is to be shown, as plain values: layers and where the view stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from pipeline.errors import UserError
from pipeline.geometry.box import Box, Vector
from pipeline.viewer.reader import BoxReader, VectorNm, check_voxel_size

LayerKind = Literal["image", "segmentation", "probability", "distance"]
LayerFormat = Literal["precomputed", "zarr", "reader"]


@dataclass(frozen=True)
class Layer:
    """One volume to show."""

    name: str
    """Name in the layer list, unique in the scene."""
    kind: LayerKind
    """`image` is drawn in grey, `segmentation` in one color per id, `probability` (uint8, 255 is 1) as a glow,
    `distance` (uint8, 128 is the surface) in two colors."""
    location: str
    """Local path (or `file://`) of the volume's root, or a URL that Neuroglancer reads: http(s), s3, gs."""
    format: LayerFormat
    """`precomputed`; `zarr` for OME-Zarr 0.4, 0.5 and plain zarr arrays in zyx; `reader` for all that a browser cannot
    read (TIFF, HDF5, slices, private stores): this process then reads, scales down and sends the voxels itself."""
    voxel_size_zyx_nm: VectorNm
    """Size of a voxel of the finest level, nm. Used where the metadata has none (plain zarr arrays) and by a shift."""
    value_range: tuple[float, float] | None = None
    """Grey values drawn black and white; None: the range of the data type. Images only."""
    shift_zyx_nm: VectorNm = (0.0, 0.0, 0.0)
    """How far the volume is moved from where its file places it, nm. Formats differ by half a voxel: the first voxel
    of a precomputed volume begins at 0, that of an OME-Zarr without a translation has its center there."""
    reader: BoxReader | None = None
    """Reads the voxels where the format is `reader`; `location` is then only a name."""
    visible: bool = True
    """Whether the layer is switched on at the start."""
    mesh_location: str | None = None
    """Folder of meshes that the volume does not name itself: those of a zarr. Segmentations only."""
    skeleton_location: str | None = None
    """The same of skeletons."""
    shape_shift_zyx_nm: VectorNm = (0.0, 0.0, 0.0)
    """How far those meshes and skeletons are moved from where they say they are, nm."""
    properties: bytes | None = None
    """Segment properties that the volume does not name itself, the JSON of a precomputed `info`."""
    selected: tuple[int, ...] = ()
    """Ids whose meshes and skeletons are drawn at the start; the slices show all others too, paler."""

    def __post_init__(self) -> None:
        """Check the values that would give a blank view.

        Raises:
            UserError: empty name, voxel size not positive, an empty value range, or a reader that is missing or
                not asked for.
        """
        if not self.name.strip():
            raise UserError(f"showing {self.location}: the layer has no name; give it one")
        check_voxel_size(self.voxel_size_zyx_nm, f"layer {self.name!r}")
        if (self.reader is None) == (self.format == "reader"):
            raise UserError(
                f"showing layer {self.name!r}: the format is {self.format!r} "
                f"{'without' if self.reader is None else 'with'} a reader; give a reader with the format 'reader' only"
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise UserError(
                f"showing layer {self.name!r}: the value range is {self.value_range}; the first must be the smaller"
            )

    @property
    def local_path(self) -> Path | None:
        """Folder of the volume on this machine, or None for a remote URL and for a reader."""
        return None if self.reader is not None else path_of(self.location)

    @property
    def shape_locations(self) -> dict[str, str]:
        """Folders of meshes and of skeletons that the volume does not name itself, by what is in them."""
        given = {"mesh": self.mesh_location, "skeletons": self.skeleton_location}
        return {name: location for name, location in given.items() if location is not None}


def path_of(location: str) -> Path | None:
    """Give the path on this machine that a location names, or None for a URL of another one."""
    scheme = urlsplit(location).scheme
    if scheme == "file":
        return Path(unquote(urlsplit(location).path))
    return Path(location) if not re.match(r"[a-z][a-z0-9+.-]*://", location) else None


@dataclass(frozen=True)
class Marks:
    """Wire boxes with a text each, such as blocks or faces."""

    name: str
    """Name in the layer list, unique in the scene."""
    boxes: tuple[tuple[Box, str], ...]
    """In voxels of `voxel_size_zyx_nm`."""
    voxel_size_zyx_nm: VectorNm
    """Of the boxes, nm."""
    color: str = "#ffcc00"
    """Hexadecimal RGB."""
    visible: bool = False
    """Whether they are switched on at the start."""

    def shifted(self, voxels: Vector) -> Marks:
        """Give the same boxes somewhere else."""
        return replace(self, boxes=tuple((box.shifted(voxels), text) for box, text in self.boxes))


@dataclass(frozen=True)
class Scene:
    """Layers, and the region that fills the view."""

    layers: tuple[Layer, ...]
    """Bottom layer first."""
    shape_zyx: Vector
    """Extent of the region that fills the view, voxels."""
    voxel_size_zyx_nm: VectorNm
    """Voxel size of the scene's coordinates, nm: of `start_zyx`, `shape_zyx` and `roi`."""
    start_zyx: Vector = (0, 0, 0)
    """First voxel of the region."""
    roi: Box | None = None
    """Region of interest, drawn as a wire box, in voxels of `voxel_size_zyx_nm`."""
    title: str = "sam4em"
    """Title of the browser's tab."""
    marks: tuple[Marks, ...] = ()
    """Wire boxes beside the region of interest."""

    def __post_init__(self) -> None:
        """Check that there is something to show.

        Raises:
            UserError: no layer, equal layer names, an empty region, or a voxel size that is not positive.
        """
        names = [layer.name for layer in self.layers] + [marks.name for marks in self.marks]
        if not self.layers:
            raise UserError("showing a scene: it has no layer; give at least one volume")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise UserError(f"showing a scene: layers share the names {repeated}; give each layer its own name")
        if any(length < 1 for length in self.shape_zyx):
            raise UserError(f"showing a scene: its shape is {self.shape_zyx}; every axis must have a voxel")
        check_voxel_size(self.voxel_size_zyx_nm, "the scene")

    @property
    def center_zyx(self) -> VectorNm:
        """Middle of the region in voxels (not nm), zyx."""
        z, y, x = (start + length / 2 for start, length in zip(self.start_zyx, self.shape_zyx, strict=True))
        return (z, y, x)
