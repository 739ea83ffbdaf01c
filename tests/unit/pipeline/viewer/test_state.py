from __future__ import annotations

from typing import Any

import pytest

from pipeline.geometry.box import Box
from pipeline.viewer.scene import Layer, Marks, Scene
from pipeline.viewer.state import FILLED_FRACTION, Layout, build_state, properties_key, scales_of, shape_key

VOXEL = (30.0, 8.0, 4.0)
URL = "https://host/volume"


def scene(roi: Box | None = None) -> Scene:
    image = Layer("em", "image", URL, "zarr", VOXEL, value_range=(17, 211))
    labels = Layer("seg", "segmentation", URL, "precomputed", VOXEL, visible=False)
    return Scene((image, labels), (13, 61, 83), VOXEL, start_zyx=(2, 3, 5), roi=roi)


def state_json(roi: Box | None = None) -> dict[str, Any]:
    state: dict[str, Any] = build_state(scene(roi), {"em": URL, "seg": URL}).to_json()
    return state


def test_dimensions_are_in_meters_and_stand_before_position_and_scale() -> None:
    state = state_json()
    assert [(name, pytest.approx(scale), unit) for name, (scale, unit) in state["dimensions"].items()] == [
        ("x", 4e-9, "m"),
        ("y", 8e-9, "m"),
        ("z", 30e-9, "m"),
    ]
    keys = list(state)
    assert keys.index("dimensions") < min(keys.index(key) for key in ("position", "crossSectionScale"))


def test_the_view_stands_in_the_middle_in_xyz() -> None:
    assert list(state_json()["position"]) == [5 + 41.5, 3 + 30.5, 2 + 6.5]


def test_layers_keep_their_order_range_and_visibility() -> None:
    image, labels = state_json()["layers"]
    assert (image["name"], image["type"], labels["name"], labels["type"]) == ("em", "image", "seg", "segmentation")
    assert image["shaderControls"] == {"normalized": {"range": [17, 211]}}
    assert "invlerp normalized" in image["shader"]
    assert labels["visible"] is False
    assert "segments" not in labels


def test_the_roi_is_a_box_in_xyz() -> None:
    roi = state_json(Box((2, 3, 5), (7, 11, 13)))["layers"][-1]
    (box,) = roi["annotations"]
    assert (list(box["pointA"]), list(box["pointB"])) == ([5, 3, 2], [13, 11, 7])


@pytest.mark.parametrize(
    ("layout", "voxels_per_pixel"),
    [
        # Extents in voxels of the finest axis (x, 4 nm): x 83, y 122, z 97.5.
        ("xy", 122 / 100),
        ("xz", 97.5 / 100),
        ("yz", 122 / 100),
        ("4panel", 122 / 50),
    ],
)
def test_the_region_fills_the_panels(layout: Layout, voxels_per_pixel: float) -> None:
    found, projection = scales_of(scene(), layout, (200, 100))
    assert found == pytest.approx(voxels_per_pixel / FILLED_FRACTION)
    assert projection > 122


def test_meshes_skeletons_and_properties_are_further_sources() -> None:
    layer = Layer(
        "seg",
        "segmentation",
        URL,
        "zarr",
        VOXEL,
        mesh_location="/meshes",
        skeleton_location="/skeletons",
        shape_shift_zyx_nm=(-15.0, -4.0, -2.0),
        properties=b"{}",
        selected=(3, 2**63),
    )
    urls = {"seg": URL, properties_key("seg"): "http://h/properties"}
    urls |= {shape_key("seg", "mesh"): "http://h/mesh", shape_key("seg", "skeletons"): "http://h/skeletons"}
    state = build_state(Scene((layer,), (13, 61, 83), VOXEL), urls).to_json()["layers"][0]
    _, mesh, skeletons, properties = state["source"]
    assert mesh["url"] == "precomputed://http://h/mesh"
    assert skeletons["url"] == "precomputed://http://h/skeletons"
    for shape in (mesh, skeletons):
        assert [row[3] for row in shape["transform"]["matrix"]] == [-2.0, -4.0, -15.0]
    properties_url = properties if isinstance(properties, str) else properties["url"]
    assert properties_url == "precomputed://http://h/properties"
    assert state["segments"] == ["3", str(2**63)]


@pytest.mark.parametrize(("kind", "control"), [("probability", "probability"), ("distance", "distance")])
def test_probabilities_and_distances_have_shaders_of_their_own(kind, control) -> None:
    layer = Layer("p", kind, URL, "zarr", VOXEL, value_range=(0, 200))
    state = build_state(Scene((layer,), (13, 61, 83), VOXEL), {"p": URL}).to_json()["layers"][0]
    assert state["type"] == "image"
    assert f"invlerp {control}" in state["shader"]
    assert state["shaderControls"] == {control: {"range": [0, 200]}}


def test_marks_are_boxes_with_texts() -> None:
    image = Layer("em", "image", URL, "zarr", VOXEL)
    marks = Marks("blocks", ((Box((0, 1, 2), (3, 4, 5)), "block 0"), (Box((3, 1, 2), (6, 4, 5)), "block 1")), VOXEL)
    layer = build_state(Scene((image,), (13, 61, 83), VOXEL, marks=(marks,)), {"em": URL}).to_json()["layers"][1]
    assert layer["visible"] is False
    assert [box["description"] for box in layer["annotations"]] == ["block 0", "block 1"]
    assert list(layer["annotations"][1]["pointA"]) == [2, 1, 3]
