from __future__ import annotations

import neuroglancer.segment_colors
import numpy as np
import pytest

from pipeline.viewer.colors import color_of

IDS = np.array([1, 2, 7, 255, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**53 + 1, 2**64 - 1], dtype=np.uint64)


def test_the_colors_are_neuroglancers() -> None:
    expected = [neuroglancer.segment_colors.hex_string_from_segment_id(0, int(value)) for value in IDS]
    assert ["#" + bytes(rgb).hex() for rgb in color_of(IDS)] == expected


def test_background_is_black_and_the_shape_is_kept() -> None:
    colors = color_of(np.array([[0, 7, 0], [7, 0, 7]], dtype=np.uint16))
    assert colors.shape == (2, 3, 3)
    assert not colors[0, 0].any()
    assert (colors[0, 1] == color_of(np.array(7, dtype=np.uint64))).all()


def test_neighboring_large_ids_do_not_collapse() -> None:
    first, second = color_of(np.array([2**53, 2**53 + 1], dtype=np.uint64))
    assert (first != second).any()


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_ids_that_are_not_unsigned_are_refused(dtype: type) -> None:
    with pytest.raises(TypeError):
        color_of(np.ones(3, dtype=dtype))
