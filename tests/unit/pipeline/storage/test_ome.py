"""OME-Zarr metadata."""

import pytest

from pipeline.errors import VolumeFormatError
from pipeline.storage.ome import multiscales_json, parse_multiscales

AXES = [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]


def entry(datasets, **more):
    return {"axes": AXES, "datasets": datasets} | more


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def shift(*values):
    return {"type": "translation", "translation": list(values)}


def test_scales_compose_and_units_count():
    datasets = [{"path": "/s0/", "coordinateTransformations": [scale(0.04, 0.004, 0.004), shift(1, 2, 3)]}]
    for attributes in ({"multiscales": [entry(datasets)]}, {"ome": {"multiscales": [entry(datasets)]}}):
        (image,) = parse_multiscales(attributes, "u")
        assert image.datasets[0].path == "s0"
        assert image.voxel_size_zyx_nm(image.datasets[0]) == pytest.approx((40, 4, 4))
        assert image.corner_zyx_nm(image.datasets[0]) == pytest.approx((1000 - 20, 2000 - 2, 3000 - 2))


def test_outer_transformations_apply_after_inner_ones():
    datasets = [{"path": "0", "coordinateTransformations": [scale(1, 1, 1), shift(1, 1, 1)]}]
    outer = {"coordinateTransformations": [scale(2, 3, 4), shift(10, 10, 10)]}
    (image,) = parse_multiscales({"multiscales": [entry(datasets, **outer)]}, "u")
    assert image.datasets[0].scale == (2, 3, 4)
    assert image.datasets[0].translation == (12, 13, 14)


def test_a_missing_unit_is_no_voxel_size():
    axes = [{"name": n, "type": "space"} for n in "zyx"]
    (image,) = parse_multiscales({"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]}, "u")
    assert image.voxel_size_zyx_nm(image.datasets[0]) is None
    assert image.corner_zyx_nm(image.datasets[0]) is None


@pytest.mark.parametrize(
    "broken",
    [
        {"datasets": []},
        {"axes": AXES, "datasets": [{"coordinateTransformations": []}]},
        entry([{"path": "0", "coordinateTransformations": [scale(1, 2)]}]),
        entry([{"path": "0", "coordinateTransformations": [scale("a", 2, 3)]}]),
        "text",
    ],
)
def test_broken_metadata_is_named(broken):
    with pytest.raises(VolumeFormatError, match=r"em\.zarr.*OME-Zarr"):
        parse_multiscales({"multiscales": [broken]}, "em.zarr")


def test_no_multiscales_is_empty():
    assert parse_multiscales({}, "u") == ()
    assert parse_multiscales({"ome": {"labels": []}}, "u") == ()


def test_what_is_written_is_read_and_levels_share_their_corner():
    sizes = [(30.0, 8.0, 8.0), (30.0, 16.0, 16.0), (60.0, 32.0, 32.0)]
    attributes = {"ome": {"multiscales": multiscales_json("m", sizes, (-15.0, 4.0, 0.0), "mode")}}
    (image,) = parse_multiscales(attributes, "u")
    assert [image.voxel_size_zyx_nm(d) for d in image.datasets] == sizes
    assert {image.corner_zyx_nm(d) for d in image.datasets} == {(-15.0, 4.0, 0.0)}
    assert image.datasets[0].translation == (0.0, 8.0, 4.0)
