"""From an output or a config to a scene that the viewer shows, and to an overview picture."""

from __future__ import annotations

import math
from pathlib import Path

from pipeline.config import RunConfig
from pipeline.config.schema import StorageSection
from pipeline.errors import VolumeNotFound
from pipeline.geometry import Spacing, Vector
from pipeline.ledger import read_manifest
from pipeline.ledger.manifest import RunManifest
from pipeline.run.outputs import run_url_for
from pipeline.run.prepare import storage_options
from pipeline.run.region import parse_roi
from pipeline.run.run_places import OUTPUT_KIND
from pipeline.storage import ObjectStore, StorageOptions, Volume, open_volume
from pipeline.viewer.names import name_layers
from pipeline.viewer.overview import draw_overview
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.scene import Layer, LayerFormat, Scene

_FORMATS: dict[str, LayerFormat] = {"ome-zarr": "zarr", "zarr": "zarr", "precomputed": "precomputed"}
_TRUTH = "truth"
# What no segmentation is called: `roi` is the wire box that the viewer adds.
_OWN_NAMES = ("image", "roi", _TRUTH)
_BROWSER_SCHEMES = ("file://", "http://", "https://")


def scene_of_output(output: str, *, truth: str | None = None, storage: StorageSection | None = None) -> Scene:
    """Gather the image and the segmentations of a run.

    Args:
        output: any output of the run.
        truth: one more label volume to show.
        storage: how stores are reached.

    Raises:
        VolumeNotFound: no run has written there.
        WorldError: a volume cannot be read.
    """
    options = storage_options(storage or StorageSection())
    manifest = _manifest_of(output, options)
    section = RunConfig.model_validate(manifest.config).image
    image = open_volume(section.url, options, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    layers = [_image_layer(section.url, image, manifest.grey_range)]
    urls = [str(item["url"]) for item in manifest.outputs if item["kind"] == OUTPUT_KIND]
    for name, url in zip(name_layers(urls, taken=_OWN_NAMES), urls, strict=True):
        volume = open_volume(url, options, kind="labels")
        layers.append(_label_layer(name, url, volume, image, visible=len(layers) == 1))
    if truth is not None:
        volume = open_volume(truth, options, kind="labels")
        layers.append(_label_layer(_TRUTH, truth, volume, image, visible=False))
    region = parse_roi(section.roi, image.info.shape_zyx).shifted(_first_voxel(image))
    return Scene(
        layers=tuple(layers),
        shape_zyx=region.shape,
        voxel_size_zyx_nm=image.require_voxel_size(),
        start_zyx=region.start,
        roi=None if section.roi is None else region,
        title=Path(output).name,
    )


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
    return draw_overview(_reader(image), _reader(labels), path)


def _reader(volume: Volume) -> BoxReader:
    origin = volume.info.origin_zyx_nm or (0.0, 0.0, 0.0)
    info = volume.info
    return BoxReader(volume.read, info.shape_zyx, info.dtype, volume.require_voxel_size(), origin)


def _manifest_of(output: str, options: StorageOptions) -> RunManifest:
    manifest = read_manifest(ObjectStore(run_url_of_output(output, options), options))
    if manifest is None:
        raise VolumeNotFound(f"the run of {output} has no manifest")
    return manifest


def _image_layer(url: str, volume: Volume, value_range: tuple[float, float] | None) -> Layer:
    return Layer(
        name="image",
        kind="image",
        location=url,
        format=_format(url, volume),
        voxel_size_zyx_nm=_finest_voxel_size(volume),
        value_range=value_range,
        reader=_reader(volume) if _format(url, volume) == "reader" else None,
    )


def _first_voxel(image: Volume) -> Vector:
    """Give the place of the image's first voxel in the viewer, in its voxels; half a voxel is a matter of format."""
    size, origin = image.require_voxel_size(), image.info.origin_zyx_nm or (0.0, 0.0, 0.0)
    z, y, x = (math.floor(at / step + 0.5) for at, step in zip(origin, size, strict=True))
    return (z, y, x)


def _label_layer(name: str, url: str, volume: Volume, image: Volume, *, visible: bool) -> Layer:
    return Layer(
        name=name,
        kind="segmentation",
        location=url,
        format=_format(url, volume),
        voxel_size_zyx_nm=_finest_voxel_size(volume),
        reader=_reader(volume) if _format(url, volume) == "reader" else None,
        shift_zyx_nm=shift_between(volume, image),
        visible=visible,
    )


def _format(url: str, volume: Volume) -> LayerFormat:
    """Choose how the browser gets a volume: from its files where it knows the format and can reach them."""
    is_reachable = "://" not in url or url.startswith(_BROWSER_SCHEMES)
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
