"""Axis order and units."""

import numpy as np
import pytest

from pipeline.errors import VolumeFormatError
from pipeline.geometry import Box
from pipeline.storage.axes import axis_order, nanometers_per_unit, voxel_size_from_attributes


@pytest.mark.parametrize("names", ["zyx", "xyz", "yzx", "czyx", "tcxzy"])
def test_a_box_is_found_whatever_the_stored_order(names):
    extents = {"z": 3, "y": 5, "x": 7, "c": 1, "t": 1}
    shape = tuple(extents[n] for n in names)
    stored = np.arange(105).reshape(shape)
    order = axis_order(list(names), shape, "u")
    zyx = stored.reshape([e for n, e in zip(names, shape, strict=True) if n in "zyx"])
    kept = [n for n in names if n in "zyx"]
    expected = zyx.transpose([kept.index(n) for n in "zyx"])
    box = Box((1, 2, 3), (3, 4, 6))
    np.testing.assert_array_equal(order.to_zyx(stored[order.selection(box)]), expected[box.slices])
    assert order.pick(shape) == (3, 5, 7)


def test_without_names_the_last_three_axes_are_zyx():
    assert axis_order(None, (1, 3, 5, 7), "u").pick((1, 3, 5, 7)) == (3, 5, 7)
    assert axis_order([None, None, None], (3, 5, 7), "u").names == ("z", "y", "x")


@pytest.mark.parametrize(
    ("names", "shape"),
    [(None, (5, 7)), (None, (2,) * 6), (["y", "x"], (5, 7)), (["z", "y", "y"], (3, 5, 7)), (["z", "y"], (3, 5, 7))],
)
def test_wrong_rank_and_names_are_refused(names, shape):
    with pytest.raises(VolumeFormatError, match=r"z, y|z, y and x"):
        axis_order(names, shape, "u")


def test_several_channels_are_refused_by_name():
    with pytest.raises(VolumeFormatError, match="2 elements along axis 'c'"):
        axis_order(list("czyx"), (2, 3, 5, 7), "u")


def test_units():
    assert nanometers_per_unit("micrometer") == 1e3
    assert nanometers_per_unit("angstrom") == 0.1
    assert nanometers_per_unit("second") is None
    assert nanometers_per_unit(None) is None


def test_voxel_sizes_of_plain_arrays():
    assert voxel_size_from_attributes({"resolution": [40, 4, 4]}) == (40.0, 4.0, 4.0)
    assert voxel_size_from_attributes({"voxel_size": [1, 2, 3], "units": ["um"] * 3}) == (1e3, 2e3, 3e3)
    assert voxel_size_from_attributes({"element_size_um": np.array([0.03, 0.008, 0.008])}) == (30.0, 8.0, 8.0)
    assert voxel_size_from_attributes({"resolution": "high"}) is None
    assert voxel_size_from_attributes({"resolution": [4, 4]}) is None
    assert voxel_size_from_attributes({"voxel_size": [1, 2, 3], "units": ["parsec"] * 3}) is None
    assert voxel_size_from_attributes({}) is None
