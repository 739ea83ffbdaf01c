"""What every segmenter says of itself before it runs, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Box, Spacing, Vector
from pipeline.image import SLAB_SLICES


@dataclass(frozen=True)
class SegmenterIdentity:
    """What the result depends on; stands in the manifest."""

    name: str
    """Name of the model."""
    weights_sha256: str
    """Digest of the weights file; empty where there are no weights."""
    config_digest: str
    """Digest of the segmenter's section of the config."""


class CoarseImage(Protocol):
    """An image of larger voxels around a block, gathered slab by slab: what it is made of is not held at once."""

    @property
    def box(self) -> Box:
        """Working voxels that it is made of, inside the bounds; holds what `SegmenterDemand.context` gives."""

    @property
    def slab_slices(self) -> int:
        """Slices that `add` is given at a time, from the front of the box; the last ones may be fewer."""

    def add(self, values_zyx: NDArray[np.float32]) -> None:
        """Take the next slab, as wide as the box."""


@dataclass(frozen=True)
class BlockImage:
    """What a segmenter sees of a block."""

    values_zyx: NDArray[Any]
    """Grey values of `box`: as stored where `SegmenterDemand.takes_raw_grey` (uint8, uint16), else float32, 0 to 1."""
    box: Box
    """Voxels of the working lattice, at least what `SegmenterDemand.context` asked for."""
    coarse: CoarseImage | None = None
    """What `SegmenterDemand.coarse` gave, filled."""


@dataclass(frozen=True)
class SegmenterDemand:
    """What a segmenter needs, stated before it runs."""

    identity: SegmenterIdentity
    """What the result depends on."""
    class_names: tuple[str, ...]
    """Classes in channel order."""
    thresholds: tuple[float, ...]
    """Probability from which a voxel is inside, per class."""
    working_voxel_size_nm: Spacing | None
    """Voxel size the model works at; None: any."""
    accepted_voxel_size_nm: tuple[float, float] | None
    """Smallest and largest source voxel size (any axis) the model was made for; None: any."""
    grey_fractions: tuple[float, float] | None
    """Fractions of the volume's voxels below the grey values that map to 0 and 1; None: the dtype's range."""
    unit_zyx: Callable[[Vector], Vector]
    """Domain shape -> a block core is best a multiple of this many working voxels: whole windows, tile strides."""
    takes_raw_grey: bool
    """`predict` wants grey values as they are stored; else resampled to the working voxel size, in [0, 1]."""
    is_fused: bool
    """Cheap enough to be computed again in every halo: then the label stage calls it and nothing is stored."""
    context: Callable[[Box, Box, Box], Box]
    """(core, bounds, domain) -> working voxels that `predict` reads."""
    projected_bytes: Callable[[Vector, Vector], tuple[int, int]]
    """(core shape, domain shape) -> host and device bytes that `predict` uses at most, weights included."""
    model_voxels: Callable[[Box, Box, Box], int]
    """(core, bounds, domain) -> voxels that pass through the model."""
    batches: Callable[[Vector], tuple[int, ...]] = lambda domain: (1,)
    """Domain shape -> tiles per model call: as planned, then what to try, in order, where the device's memory is full.
    Anything but the first changes rounding."""
    coarse: Callable[[Box, Box, Box], CoarseImage] | None = None
    """(core, bounds, domain) -> the coarse image that `predict` wants too, empty; None: it wants none."""
    sdf_tau_nm: float | None = None
    """Where the signed distances are cut off that `predict` gives behind the classes, one per class; None: it gives
    none."""

    def reads(self, core: Box, bounds: Box, domain: Box) -> Box:
        """Working voxels that are read for a core, with those of the coarse image."""
        return self.context(core, bounds, domain) if self.coarse is None else self.coarse(core, bounds, domain).box

    def image(self, read: Callable[[Box], NDArray[np.float32]], core: Box, bounds: Box, domain: Box) -> BlockImage:
        """Gather what `predict` wants for a core, slab by slab from the front.

        Args:
            read: working voxels -> their grey values, float32, 0 to 1; asked for each slice once.
            core: the voxels whose probabilities are wanted.
            bounds: the voxels where image data exists.
            domain: the whole region that is segmented.
        """
        box = self.context(core, bounds, domain)
        coarse = None if self.coarse is None else self.coarse(core, bounds, domain)
        values_zyx = np.empty(box.shape, np.float32)
        for slab in box.slabs(SLAB_SLICES) if coarse is None else coarse.box.slabs(coarse.slab_slices):
            slab_zyx = read(slab)
            inside = slab.intersection(box)
            values_zyx[inside.relative_to(box.start).slices] = slab_zyx[inside.relative_to(slab.start).slices]
            if coarse is not None:
                coarse.add(slab_zyx)
        return BlockImage(values_zyx, box, coarse)


class Segmenter(Protocol):
    """A loaded model."""

    def predict(
        self, image: BlockImage, core: Box, bounds: Box, domain: Box, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """Give the probabilities of one block; pure in effect.

        Args:
            image: of the block.
            core: the voxels wanted.
            bounds: the voxels where image data exists.
            domain: the whole region that is segmented; the model's grids are anchored at its start.
            batch: one of `SegmenterDemand.batches`; default: the first.

        Returns:
            uint8 of shape (channels, z, y, x): per class its probability, 255 is 1; where `SegmenterDemand.sdf_tau_nm`
            is given, then per class its signed distance, 0 is -tau, 255 is tau, from 128 on inside.

        Raises:
            DeviceOutOfMemory: the accelerator's memory is full.
            DeviceLost: the accelerator went away.
        """
