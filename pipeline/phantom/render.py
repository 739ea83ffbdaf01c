"""Draws any box of a phantom: grey values and exact labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import ConfigError
from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.phantom.anatomy import Curves, grow_tissue
from pipeline.phantom.faults import expose
from pipeline.phantom.field import WARP_LIMIT_NM, Tile, frame_shape, make_tile
from pipeline.phantom.grey import paint
from pipeline.phantom.organelles import Details, grow_details
from pipeline.phantom.scene import Scene
from pipeline.phantom.spec import PhantomSpec

ByteArray = npt.NDArray[np.uint8]
LabelArray = npt.NDArray[np.uint64]

LAYERS = ("image", "neurites", "mitochondria", "synapses", "glia")
"""What `render` can be asked for."""
_INNER = (slice(1, -1), slice(1, -1), slice(1, -1))
_REGION_NM = 4000.0
"""Objects are grown for regions of this size, so that memory stays bounded for any box."""


@dataclass(frozen=True)
class PhantomBlock:
    """One box of a phantom. A layer that was not asked for is None."""

    box: Box
    """The voxels, in the phantom's coordinates."""
    image_zyx: ByteArray | None
    """Grey values."""
    neurites_zyx: LabelArray | None
    """One id per neurite; 0 in glia. Glia or a thick neighbor may cut a neurite; its pieces stay together within
    the few micrometers of its curve."""
    mitochondria_zyx: LabelArray | None
    """One id per mitochondrion, each one connected object."""
    synapses_zyx: LabelArray | None
    """One id per synapse: the presynaptic membrane, the cleft and the postsynaptic density."""
    glia_zyx: LabelArray | None
    """1 in astrocytic sheets."""


def render(spec: PhantomSpec, box: Box, want: Iterable[str] = LAYERS) -> PhantomBlock:
    """Draw a box. The value of a voxel depends on the spec and the voxel's global index alone.

    Args:
        spec: the phantom. Its shape does not limit the box.
        box: voxels to draw; memory is proportional to it.
        want: layers to draw, from `LAYERS`.

    Returns:
        The wanted layers, each of the box's shape.

    Raises:
        ConfigError: a layer of that name does not exist.
    """
    wanted = set(want)
    if not wanted <= set(LAYERS):
        raise ConfigError(f"phantom: layers {sorted(wanted - set(LAYERS))} do not exist, known are {LAYERS}")
    layers: dict[str, npt.NDArray[Any]] = {
        name: np.zeros(box.shape, np.uint8 if name == "image" else np.uint64) for name in wanted
    }
    frame = frame_shape(spec)
    for region in _grid_boxes(box, _region_shape(spec, frame)):
        part = region.intersection(box)
        low, high = _tissue_bounds(spec, part)
        curves = grow_tissue(spec.seed, low, high)
        details = grow_details(spec, curves, low, high)
        for tile_frame in _grid_boxes(part, frame):
            voxels = tile_frame.intersection(part)
            tile = make_tile(spec, tile_frame, voxels.grown((1, 1, 1)))
            _draw_tile(spec, tile, curves, details, layers, voxels.relative_to(box.start))
    return PhantomBlock(box, *(layers.get(name) for name in LAYERS))


def _grid_boxes(box: Box, step: Vector) -> Iterable[Box]:
    """Yield the boxes of the global grid of a given step that touch a box."""
    if box.is_empty:
        return
    start = tuple(a // s * s for a, s in zip(box.start, step, strict=True))
    stop = tuple(-(-b // s) * s for b, s in zip(box.stop, step, strict=True))
    grid = BlockGrid(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])), step)
    for index in range(len(grid)):
        yield grid.box(index)


def _region_shape(spec: PhantomSpec, frame: Vector) -> Vector:
    """Whole frames up to about 4 micrometers, at most 512 voxels per axis."""
    z, y, x = (
        max(1, int(min(_REGION_NM / size, 512)) // extent) * extent
        for size, extent in zip(spec.voxel_size_zyx_nm, frame, strict=True)
    )
    return z, y, x


def _tissue_bounds(spec: PhantomSpec, box: Box) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners of the part of tissue space that a box may show, in nm."""
    size = np.array(spec.voxel_size_zyx_nm)
    return np.array(box.start) * size - WARP_LIMIT_NM, np.array(box.stop) * size + WARP_LIMIT_NM


def _draw_tile(
    spec: PhantomSpec,
    tile: Tile,
    curves: Curves,
    details: Details,
    layers: dict[str, npt.NDArray[Any]],
    target: Box,
) -> None:
    """Compute one tile, which has a rim of one voxel for slopes, and put it into the layers."""
    scene = Scene.compose(spec, tile, curves, details)
    where = target.slices
    if "image" in layers:
        grey = paint(spec, scene)
        layers["image"][where] = expose(spec, tile, grey)[_INNER]
    for name in ("neurites", "mitochondria", "synapses", "glia"):
        if name in layers:
            layers[name][where] = scene.labels(name)[_INNER]
