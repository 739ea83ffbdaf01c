"""A mask volume with a voxel size of its own: which parts of the full volume are worth work."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pipeline.geometry import BlockGrid, Box, Vector
from pipeline.storage.volume import Nanometers, Volume

_MAX_BLOCK_VOXELS = 2**24


class MaskVolume:
    """Asks a label volume, whose voxel (0, 0, 0) begins where the full volume begins, for coverage."""

    def __init__(self, volume: Volume, *, max_block_voxels: int = _MAX_BLOCK_VOXELS) -> None:
        """Wrap a volume opened with `kind="labels"`.

        Args:
            volume: with a voxel size.
            max_block_voxels: at most this many mask voxels are in memory at once (but at least one chunk's row).

        Raises:
            ConfigError: the mask has no voxel size.
        """
        self._volume = volume
        self._voxel_size = volume.require_voxel_size()
        self._core = _block_shape(volume.info.chunk_zyx, volume.info.shape_zyx, max_block_voxels)

    @property
    def volume(self) -> Volume:
        """The volume that is asked."""
        return self._volume

    def covers(self, start_zyx_nm: Nanometers, stop_zyx_nm: Nanometers) -> bool:
        """Whether any mask voxel above 0 shares space with a box; outside the mask all is 0.

        Args:
            start_zyx_nm: lower corner from the full volume's origin.
            stop_zyx_nm: upper corner.
        """
        box = self.voxels_touched(start_zyx_nm, stop_zyx_nm)
        return any(bool(self._volume.read(part).any()) for part in self._parts(box))

    def voxels_touched(self, start_zyx_nm: Nanometers, stop_zyx_nm: Nanometers) -> Box:
        """Give the mask voxels that share space with a box in nm, clipped to the mask."""
        # A millionth of a voxel: 3 * 4.6 nm and 13.8 nm must be the same place.
        start = tuple(
            max(0, math.floor(nm / size + 1e-6)) for nm, size in zip(start_zyx_nm, self._voxel_size, strict=True)
        )
        stop = tuple(
            max(0, math.ceil(nm / size - 1e-6)) for nm, size in zip(stop_zyx_nm, self._voxel_size, strict=True)
        )
        low: Vector = (start[0], start[1], start[2])
        high: Vector = (max(low[0], stop[0]), max(low[1], stop[1]), max(low[2], stop[2]))
        return Box.of_shape(self._volume.info.shape_zyx).intersection(Box(low, high))

    def _parts(self, box: Box) -> Iterator[Box]:
        """Cut a box into parts of bounded size on the mask's own grid."""
        grid = BlockGrid(Box.of_shape(self._volume.info.shape_zyx), self._core)
        for index in grid.touched_by(box):
            part = grid.box(index).intersection(box)
            if not part.is_empty:
                yield part


def _block_shape(chunk: Vector, shape: Vector, max_voxels: int) -> Vector:
    """Grow a chunk by whole chunks, x first, while it stays small; a chunk too large is cut along z, then y."""
    core = [max(1, min(chunk[axis], shape[axis])) for axis in range(3)]
    for axis in (0, 1):
        others = core[0] * core[1] * core[2] // core[axis]
        core[axis] = max(1, min(core[axis], max_voxels // max(1, others)))
    for axis in (2, 1, 0):
        while core[axis] < shape[axis] and 2 * core[0] * core[1] * core[2] <= max_voxels:
            core[axis] *= 2
    return core[0], core[1], core[2]
