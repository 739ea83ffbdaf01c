from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.geometry.box import Box
from pipeline.viewer.reader import BoxReader

VOXEL = (30.0, 8.0, 4.0)


def test_an_array_is_read_by_box_and_by_slices() -> None:
    array = np.arange(2 * 3 * 5, dtype=np.uint16).reshape(2, 3, 5)
    reader = BoxReader.of_array(array, VOXEL, (1.0, 2.0, 3.0))
    assert (reader.shape, reader.dtype, reader.origin_zyx_nm) == ((2, 3, 5), np.dtype(np.uint16), (1.0, 2.0, 3.0))
    assert (reader.read(Box((1, 0, 2), (2, 3, 4))) == array[1:2, 0:3, 2:4]).all()
    start, stop = np.int64(1), np.int64(2)
    assert (reader[start:stop, 0:3, 2:4] == array[1:2, 0:3, 2:4]).all()


def test_volumes_without_an_extent_are_refused() -> None:
    with pytest.raises(UserError, match="shape"):
        BoxReader.of_array(np.ones((0, 3, 5)), VOXEL)
    with pytest.raises(UserError, match="voxel size"):
        BoxReader.of_array(np.ones((2, 3, 5)), (0.0, 8.0, 8.0))
