"""The state of the Neuroglancer page for a scene.

The dimensions stand first: position and scale are counted in them, and Neuroglancer shows a blank page when it
meets a position before it knows the units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import neuroglancer

from pipeline.viewer.reader import VectorNm
from pipeline.viewer.scene import Layer, Scene
from pipeline.viewer.source import source_of

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

IMAGE_SHADER = "#uicontrol invlerp normalized\nvoid main() {\n  emitGrayscale(normalized());\n}\n"


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
        urls: layer name -> URL of the volume's root as the browser sees it.
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
        state.layers.append(name=layer.name, layer=_layer_of(layer, urls[layer.name]), visible=layer.visible)
    if scene.roi is not None:
        state.layers.append(name="roi", layer=_roi_layer(scene))
    return state


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


def _layer_of(layer: Layer, url: str) -> neuroglancer.Layer:
    source = source_of(layer, url)
    if layer.kind == "segmentation":
        # Nothing is selected, so every segment is shown; a double click then isolates one.
        return neuroglancer.SegmentationLayer(source=source, selected_alpha=SEGMENTATION_ALPHA, not_selected_alpha=0.1)
    image = neuroglancer.ImageLayer(source=source, shader=IMAGE_SHADER, opacity=1.0)
    if layer.value_range is not None:
        image.shader_controls = {"normalized": {"range": list(layer.value_range)}}
    return image


def _roi_layer(scene: Scene) -> neuroglancer.LocalAnnotationLayer:
    if scene.roi is None:
        raise ValueError("the scene has no region of interest")
    box = neuroglancer.AxisAlignedBoundingBoxAnnotation(
        id="roi", point_a=scene.roi.start[::-1], point_b=scene.roi.stop[::-1], description="region of interest"
    )
    dimensions = neuroglancer.CoordinateSpace(
        names=["x", "y", "z"], units="nm", scales=_reversed(scene.voxel_size_zyx_nm)
    )
    return neuroglancer.LocalAnnotationLayer(dimensions=dimensions, annotations=[box], annotation_color="#ffcc00")


def _reversed(vector: VectorNm) -> VectorNm:
    return (vector[2], vector[1], vector[0])
