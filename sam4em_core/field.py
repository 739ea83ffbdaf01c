"""From a U-Net and a piece of a volume to signed distances that do not depend on how the volume was cut.

1. working voxels -> U-Net voxels: means of whole groups, anchored at the volume (`patches`)
2. every patch that has a part in what is wanted, one at a time, whole
3. blended over the overlaps as integers (2^-24), so that the order of patches does not matter
4. interpolated to working voxels, linearly between centers, and clipped to [-1, 1]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sam4em_core.axis import Span, Vector, reflected
from sam4em_core.errors import ImageShapeError, NonFiniteError
from sam4em_core.patches import PatchGrid
from sam4em_core.unet3d import UNet3d

FieldArray = NDArray[np.float32]

# Weighted distances are summed as integers of this unit.
_ONE = 1 << 24
# The output is linear; what is further from [-1, 1] than this says nothing more, and must not overflow the sums.
_LARGEST = 64.0


@dataclass(frozen=True)
class ImagePiece:
    """Grey values of a box of the working lattice."""

    image_zyx: NDArray[np.float32]
    """Grey values in [0, 1]."""
    start: Vector
    """Position of the first voxel, in working voxels."""


@torch.inference_mode()
def predict_field(network: UNet3d, grid: PatchGrid, piece: ImagePiece, start: Vector, stop: Vector) -> FieldArray:
    """Predict the signed distances of a box.

    Args:
        network: in eval mode, on any device.
        grid: the volume's patches.
        piece: covers at least `grid.context` of the box.
        start: first working voxel wanted.
        stop: one past the last one.

    Returns:
        Distance / tau in [-1, 1], positive inside, float32 of shape (classes, z, y, x).

    Raises:
        ImageShapeError: the image is no float32 volume, or does not cover the context.
        NonFiniteError: the network gave a NaN or an infinity.
    """
    _require_piece(grid, piece, start, stop)
    spans = [grid.lattice_span(axis, start[axis], stop[axis]) for axis in range(3)]
    shape = [high - low for low, high in spans]
    sums = np.zeros((network.config.num_classes, *shape), dtype=np.int64)
    for patch in grid.touching(start, stop):
        _add_patch(sums, _predict_patch(network, grid, piece, patch), grid, patch, spans)
    field: FieldArray = sums.astype(np.float32) / np.float32(_ONE)
    for axis in range(3):
        field = _interpolated(field, grid, axis, spans[axis], (start[axis], stop[axis]))
    return np.clip(field, np.float32(-1), np.float32(1))


def _require_piece(grid: PatchGrid, piece: ImagePiece, start: Vector, stop: Vector) -> None:
    image = piece.image_zyx
    if image.ndim != 3 or image.dtype != np.float32:
        raise ImageShapeError(
            f"predicting distances: the image has {image.ndim} axes and type {image.dtype}, expected three axes "
            "(z, y, x) and float32"
        )
    low, high = grid.context(start, stop)
    end = tuple(first + extent for first, extent in zip(piece.start, image.shape, strict=True))
    if any(have > want for have, want in zip(piece.start, low, strict=True)) or any(
        have < want for have, want in zip(end, high, strict=True)
    ):
        raise ImageShapeError(
            f"predicting distances of {start} to {stop}: reading {low} to {high}, the image has {piece.start} to {end}"
        )


def _predict_patch(network: UNet3d, grid: PatchGrid, piece: ImagePiece, patch: Vector) -> FieldArray:
    """The U-Net's output for one patch, (classes, z, y, x)."""
    indices = []
    for axis, index in enumerate(patch):
        span = grid.working_span(axis, grid.axes[axis].span(index))
        bounds = grid.bounds[0][axis], grid.bounds[1][axis]
        indices.append(reflected(span, bounds) - piece.start[axis])
    image = downsampled(piece.image_zyx[np.ix_(*indices)], grid.factors_zyx)
    device = next(network.parameters()).device
    tensor = torch.from_numpy(image)[None, None].to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
        output: FieldArray = network(tensor)[0].float().cpu().numpy()
    if not np.isfinite(output).all():
        raise NonFiniteError(f"predicting distances: patch {patch} gave a value that is not a number; check the image")
    return output


def downsampled(image_zyx: NDArray[np.float32], factors_zyx: Vector) -> NDArray[np.float32]:
    """Means of whole groups of voxels; the shape must be a multiple of the factors."""
    means = image_zyx
    for axis, factor in enumerate(factors_zyx):
        if factor == 1:
            continue
        shape = means.shape
        groups = means.reshape(*shape[:axis], shape[axis] // factor, factor, *shape[axis + 1 :])
        # Added one after the other: the same bits whatever the array's shape.
        total = groups.take(0, axis=axis + 1)
        for index in range(1, factor):
            total = total + groups.take(index, axis=axis + 1)
        means = np.asarray(total / np.float32(factor), dtype=np.float32)
    return np.ascontiguousarray(means)


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
        return values_czyx
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
