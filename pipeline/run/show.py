"""From an output or a config to a scene that the viewer shows, and to an overview picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.config.schema import StorageSection
from pipeline.errors import VolumeNotFound
from pipeline.geometry import Spacing, Vector
from pipeline.ledger import read_manifest, read_state
from pipeline.ledger.manifest import RunManifest
from pipeline.run.outputs import run_url_for
from pipeline.run.prepare import storage_options
from pipeline.run.region import parse_roi
from pipeline.run.run_places import OUTPUT_KIND, PREDICTION_KIND, spec_from
from pipeline.run.show_tables import ClassObjects, block_marks, largest_objects, seam_marks
from pipeline.storage import ObjectStore, StorageOptions, Volume, open_volume
from pipeline.storage.locations import MESH_FOLDER, SHAPE_FOLDERS, SKELETON_FOLDER, read_bytes, shape_url
from pipeline.viewer.names import name_layers
from pipeline.viewer.overview import draw_overview
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.scene import Layer, LayerFormat, LayerKind, Marks, Scene

_FORMATS: dict[str, LayerFormat] = {"ome-zarr": "zarr", "zarr": "zarr", "precomputed": "precomputed"}
_TRUTH = "truth"
# What no segmentation is called: the last ones are wire boxes.
_OWN_NAMES = ("image", "roi", _TRUTH, "blocks", "worst seams")
_BROWSER_SCHEMES = ("file://", "http://", "https://")
_PUBLIC_SCHEMES = ("s3://", "gs://")


def scene_of_output(
    output: str,
    *,
    truth: str | None = None,
    storage: StorageSection | None = None,
    extra: Sequence[tuple[LayerKind, str]] = (),
    is_public: bool = False,
) -> Scene:
    """Gather what there is to see of a run: also of one that is only half done.

    Args:
        output: any output of the run.
        truth: one more label volume to show.
        storage: how stores are reached.
        extra: further volumes, such as probabilities, with how they are drawn.
        is_public: other people's browsers are to read the stores themselves, without this process.

    Raises:
        VolumeNotFound: no run has written there.
        WorldError: a volume cannot be read.
    """
    options = storage_options(storage or StorageSection())
    manifest = _manifest_of(output, options)
    store = ObjectStore(run_url_of_output(output, options), options)
    section = RunConfig.model_validate(manifest.config).image
    image = open_volume(section.url, options, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    layers = [_plain_layer("image", "image", section.url, image, is_public, value_range=manifest.grey_range)]
    layers += _segmentations(manifest, store, image, options, is_public)
    if truth is not None:
        volume = open_volume(truth, options, kind="labels")
        layers.append(_label_layer(_TRUTH, truth, volume, image, is_public=is_public, visible=False))
    wanted = [*_predictions(manifest), *((kind, url, True) for kind, url in extra)]
    taken = [*_OWN_NAMES, *(layer.name for layer in layers)]
    names = name_layers([url for _, url, _ in wanted], taken=taken)
    for name, (kind, url, visible) in zip(names, wanted, strict=True):
        layers.append(replace(_extra_layer(name, kind, url, image, options, is_public), visible=visible))
    region = parse_roi(section.roi, image.info.shape_zyx).shifted(_first_voxel(image))
    return Scene(
        layers=tuple(layers),
        shape_zyx=region.shape,
        voxel_size_zyx_nm=image.require_voxel_size(),
        start_zyx=region.start,
        roi=None if section.roi is None else region,
        title=Path(output).name + ("" if read_state(store).complete else " (not complete)"),
        marks=_marks(manifest, store, image),
    )


def _segmentations(
    manifest: RunManifest, store: ObjectStore, image: Volume, options: StorageOptions, is_public: bool
) -> list[Layer]:
    """Give a layer per output volume; only the first one is switched on."""
    outputs = [item for item in manifest.outputs if item["kind"] == OUTPUT_KIND]
    urls = [str(item["url"]) for item in outputs]
    objects = largest_objects(store, manifest)
    shapes = _shape_places(outputs, options)
    layers: list[Layer] = []
    for name, item in zip(name_layers(urls, taken=_OWN_NAMES), outputs, strict=True):
        volume = open_volume(item["url"], options, kind="labels")
        layer = _label_layer(name, item["url"], volume, image, is_public=is_public, visible=not layers)
        class_name = item.get("spec", {}).get("class_name", "")
        if class_name in objects:
            layer = _with_objects(layer, class_name, objects[class_name], shapes.get(class_name, {}), volume)
        layers.append(layer)
    return layers


def _predictions(manifest: RunManifest) -> list[tuple[LayerKind, str, bool]]:
    """List the probabilities and signed distances that a run keeps; switched off at the start."""
    kept = [str(item["url"]) for item in manifest.outputs if item["kind"] == PREDICTION_KIND]
    return [("distance" if "/distance-" in url else "probability", url, False) for url in kept]


def _shape_places(outputs: Sequence[Mapping[str, Any]], options: StorageOptions) -> dict[str, dict[str, str]]:
    """Find the folders of meshes and skeletons of every class that has any."""
    places: dict[str, dict[str, str]] = {}
    for item in outputs:
        for folder in SHAPE_FOLDERS:
            url = shape_url(item["url"], item.get("format", ""), folder)
            if read_bytes(f"{url}/info", options) is not None:
                places.setdefault(str(item["spec"]["class_name"]), {}).setdefault(folder, url)
    return places


def _with_objects(
    layer: Layer, class_name: str, objects: ClassObjects, shapes: Mapping[str, str], volume: Volume
) -> Layer:
    """Add to a layer what its own files do not say: properties, meshes, skeletons; precomputed names its own."""
    selected = objects.selected() if shapes else ()
    if volume.info.format == "precomputed" and layer.reader is None:
        return replace(layer, selected=selected)
    size, corner = volume.require_voxel_size(), volume.info.origin_zyx_nm or (0.0, 0.0, 0.0)
    # Meshes and skeletons count voxels of the full volume from 0, as precomputed does.
    z, y, x = (
        at - math.floor(at / step + 0.5) * step + moved
        for at, step, moved in zip(corner, size, layer.shift_zyx_nm, strict=True)
    )
    return replace(
        layer,
        selected=selected,
        mesh_location=shapes.get(MESH_FOLDER),
        skeleton_location=shapes.get(SKELETON_FOLDER),
        shape_shift_zyx_nm=(z, y, x),
        properties=objects.properties(class_name),
    )


def _marks(manifest: RunManifest, store: ObjectStore, image: Volume) -> tuple[Marks, ...]:
    """Draw blocks and worst seams, where the image begins."""
    outputs = [item for item in manifest.outputs if item["kind"] == OUTPUT_KIND and "spec" in item]
    if not outputs:
        return ()
    spec = spec_from(outputs[0]["spec"])
    corner = _first_voxel(image)
    moved = [
        round(first * nm / size)
        for first, nm, size in zip(corner, image.require_voxel_size(), spec.voxel_size_zyx_nm, strict=True)
    ]
    found = (block_marks(manifest, spec), seam_marks(store, manifest, spec))
    return tuple(marks.shifted((moved[0], moved[1], moved[2])) for marks in found if marks is not None)


def run_url_of_output(output: str, options: StorageOptions) -> str:
    """Find the run directory that belongs to an output.

    Raises:
        VolumeNotFound: there is none.
    """
    url = output.rstrip("/")
    # With several classes OUTPUT/CLASS is a volume, and the run belongs to OUTPUT.
    for first_output in (url, url.rpartition("/")[0]):
        run_url = run_url_for(first_output)
        if read_manifest(ObjectStore(run_url, options)) is not None:
            return run_url
    raise VolumeNotFound(
        f"looking for the run that wrote {output}: there is no {run_url_for(output)} with a manifest; "
        "give the first output of a run, or its config"
    )


def draw_run_overview(image_url: str, labels_url: str, path: Path) -> Path:
    """Draw the middle slices of an image with its labels into a PNG.

    Raises:
        WorldError: a volume cannot be read, or the picture not be written.
    """
    image, labels = open_volume(image_url), open_volume(labels_url, kind="labels")
    return draw_overview(reader_of(image), reader_of(labels), path)


def reader_of(volume: Volume) -> BoxReader:
    """Let a picture read a stored volume."""
    origin = volume.info.origin_zyx_nm or (0.0, 0.0, 0.0)
    info = volume.info
    return BoxReader(volume.read, info.shape_zyx, info.dtype, volume.require_voxel_size(), origin)


def _manifest_of(output: str, options: StorageOptions) -> RunManifest:
    manifest = read_manifest(ObjectStore(run_url_of_output(output, options), options))
    if manifest is None:
        raise VolumeNotFound(f"the run of {output} has no manifest")
    return manifest


def _plain_layer(
    name: str,
    kind: LayerKind,
    url: str,
    volume: Volume,
    is_public: bool,
    *,
    value_range: tuple[float, float] | None = None,
    shift_zyx_nm: Spacing = (0.0, 0.0, 0.0),
    visible: bool = True,
) -> Layer:
    layer_format = _format(url, volume, is_public)
    return Layer(
        name=name,
        kind=kind,
        location=url,
        format=layer_format,
        voxel_size_zyx_nm=_finest_voxel_size(volume),
        value_range=value_range,
        shift_zyx_nm=shift_zyx_nm,
        reader=reader_of(volume) if layer_format == "reader" else None,
        visible=visible,
    )


def _extra_layer(
    name: str, kind: LayerKind, url: str, image: Volume, options: StorageOptions, is_public: bool
) -> Layer:
    volume = open_volume(url, options, kind="labels" if kind == "segmentation" else "image")
    return _plain_layer(name, kind, url, volume, is_public, shift_zyx_nm=shift_between(volume, image))


def _first_voxel(image: Volume) -> Vector:
    """Give the place of the image's first voxel in the viewer, in its voxels; half a voxel is a matter of format."""
    size, origin = image.require_voxel_size(), image.info.origin_zyx_nm or (0.0, 0.0, 0.0)
    z, y, x = (math.floor(at / step + 0.5) for at, step in zip(origin, size, strict=True))
    return (z, y, x)


def _label_layer(name: str, url: str, volume: Volume, image: Volume, *, is_public: bool, visible: bool) -> Layer:
    shift = shift_between(volume, image)
    return _plain_layer(name, "segmentation", url, volume, is_public, shift_zyx_nm=shift, visible=visible)


def _format(url: str, volume: Volume, is_public: bool) -> LayerFormat:
    """Choose how the browser gets a volume: from its files where it knows the format and can reach them."""
    schemes = (*_BROWSER_SCHEMES, *(_PUBLIC_SCHEMES if is_public else ()))
    is_reachable = "://" not in url or url.startswith(schemes)
    return _FORMATS.get(volume.info.format, "reader") if is_reachable else "reader"


def _finest_voxel_size(volume: Volume) -> Spacing:
    return volume.info.levels[0].voxel_size_zyx_nm or volume.require_voxel_size()


def shift_between(volume: Volume, image: Volume) -> Spacing:
    """Give the part of a voxel by which a volume's file places it beside the image's voxel grid, in nm.

    Formats differ by half a voxel: precomputed begins at 0, an OME-Zarr image has its first center there.
    """
    size = volume.require_voxel_size()
    here, there = volume.info.origin_zyx_nm or (0.0, 0.0, 0.0), image.info.origin_zyx_nm or (0.0, 0.0, 0.0)
    apart = [b - a for a, b in zip(here, there, strict=True)]
    rest = [gap - round(gap / step) * step for gap, step in zip(apart, size, strict=True)]
    return (rest[0], rest[1], rest[2])


def config_of_output(output: str, options: StorageOptions) -> RunConfig:
    """Give the config of the run that wrote an output: the sections that decide its result, defaults for the others.

    Raises:
        VolumeNotFound: no run has written there.
    """
    return RunConfig.model_validate(_manifest_of(output, options).config)
