"""From a U-Net and a piece of a volume to signed distances that do not depend on how the volume was cut.

1. working voxels -> U-Net voxels: means of whole groups, anchored at the volume (`lattice`)
2. every patch that has a part in what is wanted, one at a time, whole
3. blended over the overlaps as integers (2^-24), so that the order of patches does not matter
4. interpolated to working voxels, linearly between centers, and clipped to [-1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sam4em_core.axis import Span, Vector
from sam4em_core.errors import ImageShapeError, NonFiniteError
from sam4em_core.lattice import LatticeImage
from sam4em_core.patches import PatchGrid
from sam4em_core.unet3d import UNet3d

FieldArray = NDArray[np.float32]

# Weighted distances are summed as integers of this unit.
_ONE = 1 << 24
# The output is linear; what is further from [-1, 1] than this says nothing more, and must not overflow the sums.
_LARGEST = 64.0


@dataclass(frozen=True)
class LatticeField:
    """Signed distances of a box on the U-Net's lattice; interpolated a part at a time."""

    values_czyx: FieldArray
    """Blended output, of what interpolating the box reads."""
    grid: PatchGrid
    """The volume's patches."""
    start: Vector
    """First working voxel of the box."""
    stop: Vector
    """One past the last one."""

    def inside(self, start: Vector, stop: Vector) -> FieldArray:
        """Interpolate a part of the box; the same bits whatever the part.

        Args:
            start: first working voxel wanted.
            stop: one past the last one.

        Returns:
            Distance / tau in [-1, 1], positive inside, float32 of shape (classes, z, y, x).
        """
        field = self.values_czyx
        for axis in range(3):
            span = self.grid.lattice_span(axis, self.start[axis], self.stop[axis])
            field = _interpolated(field, self.grid, axis, span, (start[axis], stop[axis]))
        return np.clip(field, np.float32(-1), np.float32(1))


@torch.inference_mode()
def predict_field(network: UNet3d, grid: PatchGrid, image: LatticeImage, start: Vector, stop: Vector) -> LatticeField:
    """Predict the signed distances of a box.

    Args:
        network: in eval mode, on any device.
        grid: the volume's patches.
        image: covers at least `PatchGrid.image_span` of the box (`lattice.LatticeGatherer`).
        start: first working voxel wanted.
        stop: one past the last one.

    Raises:
        ImageShapeError: the image does not cover that.
        NonFiniteError: the network gave a NaN or an infinity.
    """
    _require_image(grid, image, start, stop)
    spans = [grid.lattice_span(axis, start[axis], stop[axis]) for axis in range(3)]
    shape = [high - low for low, high in spans]
    sums = np.zeros((network.config.num_classes, *shape), dtype=np.int64)
    for patch in grid.touching(start, stop):
        _add_patch(sums, _predict_patch(network, grid, image, patch), grid, patch, spans)
    return LatticeField(sums.astype(np.float32) / np.float32(_ONE), grid, start, stop)


def _require_image(grid: PatchGrid, image: LatticeImage, start: Vector, stop: Vector) -> None:
    for axis in range(3):
        low, high = grid.image_span(axis, start[axis], stop[axis])
        first, end = image.start[axis], image.start[axis] + image.image_zyx.shape[axis]
        if first > low or end < high:
            raise ImageShapeError(
                f"predicting distances of {start} to {stop}: along axis {axis} it reads U-Net voxels {low} to {high}, "
                f"the image has {first} to {end}"
            )


def _predict_patch(network: UNet3d, grid: PatchGrid, image: LatticeImage, patch: Vector) -> FieldArray:
    """The U-Net's output for one patch, (classes, z, y, x)."""
    indices = [places - first for places, first in zip(grid.reads(patch), image.start, strict=True)]
    tensor = torch.from_numpy(image.image_zyx[np.ix_(*indices)])[None, None]
    device = next(network.parameters()).device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        output: FieldArray = network(tensor.to(device))[0].float().cpu().numpy()
    if not np.isfinite(output).all():
        raise NonFiniteError(f"predicting distances: patch {patch} gave a value that is not a number; check the image")
    return output


def _add_patch(
    sums_czyx: NDArray[np.int64], output_czyx: FieldArray, grid: PatchGrid, patch: Vector, spans: list[Span]
) -> None:
    """Add one patch's weighted output to the part of the wanted lattice that it covers."""
    into, out_of, weights = [], [], []
    for axis, index in enumerate(patch):
        begin, end = grid.axes[axis].span(index)
        low, high = max(begin, spans[axis][0]), min(end, spans[axis][1])
        into.append(slice(low - spans[axis][0], high - spans[axis][0]))
        out_of.append(slice(low - begin, high - begin))
        weights.append(grid.axes[axis].ramp(index)[low - begin : high - begin])
    weight_zyx = weights[0][:, None, None] * weights[1][:, None] * weights[2]
    part = np.clip(output_czyx[(slice(None), *out_of)], -_LARGEST, _LARGEST)
    sums_czyx[(slice(None), *into)] += np.rint(part * weight_zyx * np.float32(_ONE)).astype(np.int64)


def _interpolated(values_czyx: FieldArray, grid: PatchGrid, axis: int, span: Span, wanted: Span) -> FieldArray:
    """Bring one axis from the lattice to working voxels; the border voxel repeats."""
    factor, first = grid.factors_zyx[axis], grid.bounds[0][axis]
    if factor == 1:
        return values_czyx.take(np.arange(*wanted) - first - span[0], axis=axis + 1)
    # Twice the place in units of 1 / factor, so that everything is an integer up to the last division.
    place = np.clip(
        2 * (np.arange(*wanted, dtype=np.int64) - first) + 1 - factor, 0, 2 * factor * (grid.axes[axis].extent - 1)
    )
    below = place // (2 * factor)
    share = ((place - below * 2 * factor) / (2 * factor)).astype(np.float32)
    above = np.minimum(below + 1, grid.axes[axis].extent - 1)
    shape = [1] * values_czyx.ndim
    shape[axis + 1] = len(share)
    low, high = (values_czyx.take(index - span[0], axis=axis + 1) for index in (below, above))
    return low + (high - low) * share.reshape(shape)
