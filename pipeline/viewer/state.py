"""The state of the Neuroglancer page for a scene.

The dimensions stand first: position and scale are counted in them, and Neuroglancer shows a blank page when it
meets a position before it knows the units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import neuroglancer

from pipeline.viewer.reader import VectorNm
from pipeline.viewer.scene import Layer, Marks, Scene
from pipeline.viewer.source import side_source, source_of

Layout = Literal["4panel", "xy", "xz", "yz", "3d"]

# Width and height in pixels of the data area that a state is scaled for: a small laptop's, less the bars.
ASSUMED_VIEW_PIXELS = (1280, 660)
# Share of a panel that the region fills, so that its border is seen.
FILLED_FRACTION = 0.92
# Height of the perspective panel against the diagonal of the region.
PERSPECTIVE_MARGIN = 1.2
# The region seen from a corner: 25 degrees about x after 35 degrees about y, as a quaternion (x, y, z, w).
PERSPECTIVE_ORIENTATION = (0.2064, 0.2936, -0.0651, 0.9311)
SEGMENTATION_ALPHA = 0.45

# Other segments, where some are selected for their meshes: seen in the slices as well.
PALE_ALPHA = 0.3

IMAGE_SHADER = "#uicontrol invlerp normalized\nvoid main() {\n  emitGrayscale(normalized());\n}\n"
# From clear over red and yellow to white; what is below the slider is clear.
PROBABILITY_SHADER = """#uicontrol invlerp probability(range=[0, 255])
#uicontrol float threshold slider(min=0, max=1, default=0.1)
void main() {
  float p = probability();
  emitRGBA(vec4(clamp(p * 3.0, 0.0, 1.0), clamp(p * 3.0 - 1.0, 0.0, 1.0), clamp(p * 3.0 - 2.0, 0.0, 1.0),
                p < threshold ? 0.0 : 0.25 + 0.5 * p));
}
"""
# Inside orange, outside blue, the surface white.
DISTANCE_SHADER = """#uicontrol invlerp distance(range=[0, 255])
void main() {
  float d = 2.0 * distance() - 1.0;
  vec3 side = d > 0.0 ? vec3(1.0, 0.55, 0.1) : vec3(0.15, 0.4, 1.0);
  emitRGBA(vec4(mix(vec3(1.0), side, min(1.0, abs(d) * 8.0)), 0.2 + 0.5 * abs(d)));
}
"""
_SHADERS = {
    "image": (IMAGE_SHADER, "normalized"),
    "probability": (PROBABILITY_SHADER, "probability"),
    "distance": (DISTANCE_SHADER, "distance"),
}


def build_state(
    scene: Scene,
    urls: Mapping[str, str],
    *,
    layout: Layout = "4panel",
    view_pixels: tuple[int, int] = ASSUMED_VIEW_PIXELS,
) -> neuroglancer.ViewerState:
    """Build the page's state: all layers, the region in the middle of the view and filling it.

    Args:
        scene: what to show.
        urls: layer name -> URL of the volume's root as the browser sees it; see `shape_key` and `properties_key`.
        layout: four panels, or one.
        view_pixels: width and height of the page's data area.

    Raises:
        VolumeNotFound, VolumeFormatError, CorruptData: a local layer is not there or not what it is said to be.
    """
    state = neuroglancer.ViewerState()
    scales_xyz = scene.voxel_size_zyx_nm[::-1]
    state.dimensions = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="nm", scales=scales_xyz)
    state.title = scene.title
    state.position = scene.center_zyx[::-1]
    state.cross_section_scale, state.projection_scale = scales_of(scene, layout, view_pixels)
    state.projection_orientation = PERSPECTIVE_ORIENTATION
    state.hide_cross_section_background_3d = True
    state.layout = layout
    for layer in scene.layers:
        sources = [source_of(layer, urls[layer.name]), *_side_sources(layer, urls)]
        state.layers.append(name=layer.name, layer=_layer_of(layer, sources), visible=layer.visible)
    if scene.roi is not None:
        roi = Marks("roi", ((scene.roi, "region of interest"),), scene.voxel_size_zyx_nm)
        state.layers.append(name="roi", layer=_marks_layer(roi))
    for marks in scene.marks:
        state.layers.append(name=marks.name, layer=_marks_layer(marks), visible=marks.visible)
    return state


def shape_key(name: str, shape: str) -> str:
    """Name a layer's folder of meshes or skeletons among the URLs; no layer has this name."""
    return f"{name}\0{shape}"


def properties_key(name: str) -> str:
    """Name a layer's segment properties among the URLs."""
    return f"{name}\0properties"


def _side_sources(layer: Layer, urls: Mapping[str, str]) -> list[dict[str, Any]]:
    keys = [shape_key(layer.name, shape) for shape in layer.shape_locations]
    sources = [side_source(urls[key], layer.shape_shift_zyx_nm) for key in keys if key in urls]
    if properties_key(layer.name) in urls:
        sources.append(side_source(urls[properties_key(layer.name)]))
    return sources


def scales_of(scene: Scene, layout: Layout, view_pixels: tuple[int, int]) -> tuple[float, float]:
    """Return the scale of the slices (voxels per pixel) and of the 3D panel (voxels per panel height).

    Both count in voxels of the finest axis, Neuroglancer's canonical voxel.
    """
    canonical_nm = min(scene.voxel_size_zyx_nm)
    z, y, x = (
        length * size / canonical_nm for length, size in zip(scene.shape_zyx, scene.voxel_size_zyx_nm, strict=True)
    )
    panels = 2 if layout == "4panel" else 1
    width, height = (FILLED_FRACTION * pixels / panels for pixels in view_pixels)
    # (horizontal, vertical) extent of each slice panel.
    planes = {"xy": (x, y), "xz": (x, z), "yz": (z, y)}
    shown = [planes[layout]] if layout in planes else list(planes.values())
    voxels_per_pixel = max(max(across / width, down / height) for across, down in shown)
    return voxels_per_pixel, PERSPECTIVE_MARGIN * (x * x + y * y + z * z) ** 0.5


def _layer_of(layer: Layer, sources: list[dict[str, Any]]) -> neuroglancer.Layer:
    if layer.kind == "segmentation":
        # With nothing selected every segment is shown; a double click then isolates one.
        labels = neuroglancer.SegmentationLayer(
            source=sources,
            selected_alpha=SEGMENTATION_ALPHA,
            not_selected_alpha=PALE_ALPHA if layer.selected else 0.1,
        )
        if layer.selected:
            labels.segments = list(layer.selected)
        return labels
    shader, control = _SHADERS[layer.kind]
    image = neuroglancer.ImageLayer(source=sources, shader=shader, opacity=1.0)
    if layer.kind != "image":
        image.blend = "default"
    if layer.value_range is not None:
        image.shader_controls = {control: {"range": list(layer.value_range)}}
    return image


def _marks_layer(marks: Marks) -> neuroglancer.LocalAnnotationLayer:
    boxes = [
        neuroglancer.AxisAlignedBoundingBoxAnnotation(
            id=f"{marks.name}-{number}" if number else marks.name,
            point_a=box.start[::-1],
            point_b=box.stop[::-1],
            description=text,
        )
        for number, (box, text) in enumerate(marks.boxes)
    ]
    dimensions = neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="nm", scales=_reversed(marks.voxel_size_zyx_nm)
    )
    return neuroglancer.LocalAnnotationLayer(dimensions=dimensions, annotations=boxes, annotation_color=marks.color)


def _reversed(vector: VectorNm) -> VectorNm:
    return (vector[2], vector[1], vector[0])
