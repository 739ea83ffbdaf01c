"""A link that shows a scene in a public Neuroglancer: for a colleague, without any server of ours."""

from __future__ import annotations

import json

import neuroglancer

from pipeline.errors import UserError
from pipeline.viewer.scene import Layer, Scene
from pipeline.viewer.state import Layout, build_state, shape_key

PUBLIC_PAGE = "https://neuroglancer-demo.appspot.com"
PUBLIC_SCHEMES = ("https://", "http://", "s3://", "gs://")


def make_link(scene: Scene, *, page: str = PUBLIC_PAGE, layout: Layout = "4panel") -> tuple[str, str]:
    """Write a scene as a link.

    Segment properties that no volume names are left out: nobody would serve them.

    Args:
        scene: what to show; every volume on a store that a browser reaches.
        page: address of a Neuroglancer.
        layout: panels at the start.

    Returns:
        The link, and its state as JSON.

    Raises:
        UserError: a volume lies on this machine, or in a format that a browser cannot read.
    """
    private = [layer.name for layer in scene.layers if not _is_public(layer)]
    if private:
        raise UserError(
            f"making a link: {', '.join(private)} cannot be read by other people's browsers; a link needs OME-Zarr or "
            "precomputed under https://, s3:// or gs://, image included. Copy the volumes there, or look at them here: "
            "the same command without --link"
        )
    urls = {layer.name: layer.location.rstrip("/") for layer in scene.layers}
    for layer in scene.layers:
        urls |= {shape_key(layer.name, shape): location for shape, location in layer.shape_locations.items()}
    state = build_state(scene, urls, layout=layout)
    return neuroglancer.to_url(state, prefix=f"{page.rstrip('/')}/"), json.dumps(state.to_json(), indent=2)


def _is_public(layer: Layer) -> bool:
    return layer.reader is None and layer.location.startswith(PUBLIC_SCHEMES)
