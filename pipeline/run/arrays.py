"""The Python interface: arrays in, arrays out, through the same run as the command line.

result = segment(image_zyx, voxel_size_zyx_nm=(5, 5, 5))        numpy in, numpy out
result = segment(dask_array, ..., output="cells.zarr")          block by block; nothing is ever whole in memory
result = segment("em.zarr/raw", output="cells.zarr")            an address, as `sam4em segment`
scores = evaluate(result.labels["mitochondrion"], truth_zyx, voxel_size_zyx_nm=(5, 5, 5))
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.read import parse_config
from pipeline.config.schema import RunConfig
from pipeline.errors import ConfigError, UserError, VolumeFormatError
from pipeline.evaluation import Placed, Scores
from pipeline.evaluation import evaluate as score
from pipeline.geometry import Box, Spacing, Vector
from pipeline.ledger import read_object
from pipeline.run.completion import Executor, StageSet
from pipeline.run.launch import run_config, run_directory
from pipeline.run.looks import leaving_report
from pipeline.run.outputs import run_url_of
from pipeline.run.prepare import PreparedRun
from pipeline.run.serial import SerialExecutor
from pipeline.segmenter import model_header
from pipeline.stages.layout import SEGMENTS_KEY
from pipeline.storage import ImageSpec, ImageWriter, Volume, open_volume
from pipeline.storage.locations import local_path
from pipeline.telemetry import SilentReporter, make_reporter

_CHUNK: Vector = (64, 64, 64)
_NANOMETERS = ("nm", "nanometer", "nanometers", "nanometre", "nanometres")


@dataclass(frozen=True)
class Segmentation:
    """What a run found."""

    labels: Mapping[str, Any]
    """Class name -> labels (z, y, x), uint64, 0 is background: the kind of array that came in."""
    segments: pa.Table
    """One row per object; see `segments.parquet` in docs/output.md."""
    output: str | None
    """Address of the result; None where it was temporary."""


def segment(
    image: Any,
    *,
    voxel_size_zyx_nm: Spacing | None = None,
    model: str = "mito-lucchi",
    classes: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = None,
    output: str | None = None,
    workers: int = 0,
    settings: Mapping[str, Any] | None = None,
    restart: bool = False,
    progress: bool = False,
) -> Segmentation:
    """Segment an array, or a stored volume.

    Args:
        image: grey values (z, y, x), uint8 or uint16: a numpy, dask or xarray array, or the address of a volume.
        voxel_size_zyx_nm: in nm; may be left out where an address's metadata or an xarray's coordinates in nm have it.
        model: name of a shipped model, or path of a .safetensors file.
        classes: names, or name -> settings of the class as in a config; default: all of the model.
        output: where to write; an array that is whole in memory needs none.
        workers: worker processes; 0 computes in this process.
        settings: further sections of a run's config, such as {"plan": {"block_zyx": [64, 512, 512]}}.
        restart: first delete what an earlier call has made at `output`. Without it the same call with an address goes
            on where the earlier one stopped, and one with an array is refused.
        progress: show it on stderr.

    Returns:
        Labels of the kind that came in; for an address, dask arrays that read the output when computed.

    Raises:
        UserError: array, voxel size or settings cannot be used.
        WorldError: image or output cannot be reached.
        WorkError: blocks are missing after all retries.
    """
    if output is None and not isinstance(_plain(image), np.ndarray):
        raise UserError("segment: an image that is not whole in memory needs `output`, where the labels are written")
    with _work_folder(image, output) as folder:
        target = output or str(Path(folder) / "labels.zarr")
        values: dict[str, Any] = {
            **_image_section(image, voxel_size_zyx_nm, folder),
            "outputs": [{"url": target}],
            "segmenter": {"kind": "sam4em", "model": model},
            "classes": _class_rules(classes, model),
            "cluster": {"workers": max(1, workers)},
        }
        for key, section in (settings or {}).items():
            values[key] = {**values.get(key, {}), **section} if isinstance(section, Mapping) else section
        config = parse_config(values, RunConfig, "segment")
        # The report of a temporary output would go with it.
        with nullcontext() if output is None else leaving_report(config):
            run_config(
                config,
                reporter=make_reporter() if progress else SilentReporter(),
                restart=restart,
                open_executor=None if workers else _in_this_process,
            )
        labels = {name: _like(image, _labels_volume(config, target, name)) for name in config.classes}
        return Segmentation(labels, _read_segments(config), output)


def evaluate(
    prediction: Any,
    truth: Any,
    *,
    voxel_size_zyx_nm: Spacing | None = None,
    hd95_cap_nm: float = 1000.0,
) -> Scores:
    """Score labels against true ones over the same voxels.

    Args:
        prediction: labels (z, y, x), unsigned integers or bool: a numpy, dask or xarray array.
        truth: likewise, 0/1 or instances; same shape.
        voxel_size_zyx_nm: in nm; without it distances are left out.
        hd95_cap_nm: surface distances are exact up to here; 0 skips them.

    Raises:
        UserError: the shapes differ.
        VolumeFormatError: an array holds no labels.
    """
    one, other = _plain(prediction), _plain(truth)
    if tuple(one.shape) != tuple(other.shape) or len(one.shape) != 3:
        raise UserError(
            f"evaluate: the prediction has shape {one.shape}, the truth {other.shape}; give (z, y, x) twice"
        )
    placed = [
        Placed(_ArrayVolume(array), array.shape, voxel_size_zyx_nm, (0, 0, 0), name)
        for array, name in ((one, "prediction"), (other, "truth"))
    ]
    return score(*placed, hd95_cap_nm=hd95_cap_nm)


class _ArrayVolume:
    """An array read box by box."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def read(self, box: Box) -> np.ndarray[Any, Any]:
        """Read a box; a dask array is computed here."""
        return np.asarray(self._array[box.slices])


def _in_this_process(prepared: PreparedRun, stages: StageSet) -> AbstractContextManager[Executor]:
    return SerialExecutor(stages)


def _work_folder(image: Any, output: str | None) -> AbstractContextManager[str]:
    """Make a folder for an array's copy, on the disk of the output where that is one; none for an address."""
    if isinstance(image, str):
        return nullcontext("")
    place = None if output is None else local_path(output)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".sam4em-", dir=None if place is None else place.parent)


def _read_segments(config: RunConfig) -> pa.Table:
    """Read the instance table: one object, or one per group of blocks."""
    store = run_directory(config, run_url_of(config))
    whole = read_object(store, SEGMENTS_KEY)
    if whole is not None:
        return pq.read_table(io.BytesIO(whole))
    keys = (f"{SEGMENTS_KEY}/{number:07d}.parquet" for number in itertools.count())
    parts = itertools.takewhile(lambda part: part is not None, (read_object(store, key) for key in keys))
    return pa.concat_tables([pq.read_table(io.BytesIO(part)) for part in parts if part is not None])


def _plain(image: Any) -> Any:
    """Give the numpy or dask array inside an xarray; anything else comes back."""
    return image.data if hasattr(image, "dims") and hasattr(image, "coords") else image


def _image_section(image: Any, size: Spacing | None, folder: str) -> dict[str, Any]:
    """Describe the image; an array is first written as a volume, block by block."""
    if isinstance(image, str):
        return {"image": {"url": image, "voxel_size_zyx_nm": size}}
    array, size = _plain(image), size or _size_from_coordinates(image)
    if not isinstance(array, np.ndarray | dask.array.Array):
        raise UserError(f"segment: found {type(image).__name__}; give a numpy, dask or xarray array, or an address")
    if array.ndim != 3 or array.dtype not in (np.uint8, np.uint16):
        raise VolumeFormatError(
            f"segment: the image is {array.dtype} with shape {array.shape}; expected uint8 or uint16 (z, y, x)"
        )
    if size is None:
        raise ConfigError("segment: give voxel_size_zyx_nm, the voxel size in nm")
    url = str(Path(folder) / "image.zarr")
    writer = ImageWriter(ImageSpec(url, array.shape, str(array.dtype), size, chunk_zyx=_CHUNK))
    writer.create()
    for index in range(len(writer.grid())):
        box = writer.grid().box(index)
        writer.write(box, np.ascontiguousarray(array[box.slices]))
    return {"image": {"url": url}}


def _size_from_coordinates(image: Any) -> Spacing | None:
    """Read the spacing of an xarray's coordinates, where they are in nm."""
    coords = getattr(image, "coords", {})
    steps = []
    for axis in ("z", "y", "x"):
        if axis not in coords or len(coords[axis]) < 2 or coords[axis].attrs.get("units") not in _NANOMETERS:
            return None
        steps.append(float(coords[axis][1] - coords[axis][0]))
    return (steps[0], steps[1], steps[2])


def _class_rules(classes: Sequence[str] | Mapping[str, Mapping[str, Any]] | None, model: str) -> dict[str, Any]:
    if isinstance(classes, Mapping):
        return {name: dict(rule) for name, rule in classes.items()}
    return {name: {} for name in classes or model_header(model).classes}


def _labels_volume(config: RunConfig, target: str, name: str) -> Volume:
    """Open the labels of one class."""
    return open_volume(target if len(config.classes) == 1 else f"{target}/{name}", kind="labels")


def _like(image: Any, labels: Volume) -> Any:
    """Give labels as the kind of array that the image was."""
    info, array = labels.info, _plain(image)
    if isinstance(array, np.ndarray):
        found: Any = labels.read(Box.of_shape(info.shape_zyx))
    else:
        found = dask.array.from_array(_Lazy(labels), chunks=info.chunk_zyx, asarray=False, meta=np.empty(0, np.uint64))
    if array is image or isinstance(image, str):
        return found
    is_same = tuple(found.shape) == tuple(image.shape)
    return type(image)(found, dims=image.dims, coords=image.coords if is_same else None, name="labels")


class _Lazy:
    """A stored volume in the form that dask slices."""

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self.shape = volume.info.shape_zyx
        self.dtype = volume.info.dtype
        self.ndim = 3

    def __getitem__(self, index: tuple[slice | int, ...]) -> np.ndarray[Any, Any]:
        """Read a box and take the rest of the index from it; dask fuses whole numbers and steps into its reads."""
        spans = [
            range(size)[part] if isinstance(part, slice) else range(size)[part : part + 1]
            for part, size in zip(index, self.shape, strict=True)
        ]
        start, stop = [min(span, default=0) for span in spans], [max(span, default=-1) + 1 for span in spans]
        voxels = self._volume.read(Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])))
        taken = voxels[np.ix_(*([at - first for at in span] for span, first in zip(spans, start, strict=True)))]
        whole_numbers = tuple(axis for axis, part in enumerate(index) if not isinstance(part, slice))
        return taken.squeeze(whole_numbers)
