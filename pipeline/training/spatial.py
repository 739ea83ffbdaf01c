"""From a config of a dual-track training to a network: volumes read, pseudo-labels written, rounds driven."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.read import parse_config, read_yaml
from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.storage import StorageOptions, open_volume
from pipeline.training.datasets import resolve_dataset
from pipeline.training.overrides import with_overrides
from pipeline.training.round_store import OmeZarrRounds
from pipeline.training.run import core_errors_of_training
from pipeline.training.schema import VolumeSection
from pipeline.training.spatial_schema import InferenceSection, SpatialFile
from pipeline.training.volumes import check_apart, load_volume

if TYPE_CHECKING:
    from sam4em_core.training.spatial_config import SpatialConfig
    from sam4em_core.training.subjects import SparseVolume, Subject


@dataclass(frozen=True)
class RoundRequest:
    """A volume to be segmented with the network of a round."""

    name: str
    """Name of the volume."""
    checkpoint: Path
    """The network."""
    place: Path
    """Folder for everything that is written."""
    image_url: str
    """The image."""
    voxel_size_zyx_nm: tuple[float, float, float]
    """Its voxel size."""
    roi: Box
    """What is segmented, in voxels of the image."""
    classes: tuple[str, ...]
    """Classes in channel order."""
    device: str
    """Device of the training."""
    inference: InferenceSection
    """How."""
    storage: dict[str, Any]
    """The storage section of the config."""


SegmentVolume = Callable[[RoundRequest], NDArray[np.uint8]]
"""Segments a volume block by block; gives bytes (channels, z, y, x) on the working lattice."""


def run_spatial(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    segment: SegmentVolume,
    resume: bool = False,
    run_dir: str | Path | None = None,
) -> Path:
    """Train a network from a few labelled slices, as a config file says.

    Args:
        config_path: a YAML file.
        overrides: `key=value` pairs with dotted keys, such as `spatial.rounds=2`.
        segment: segments a volume through the pipeline, for `inference.kind: pipeline`.
        resume: go on from where an earlier process got to.
        run_dir: where everything is written; by default what the file says.

    Returns:
        The network of the best round.

    Raises:
        ConfigError: the file, a value, or the labels do not fit.
        TrainingError: training cannot go on: the tracks disagree everywhere, or a loss is not a number.
        WeightsError: a saved state is unreadable.
        StoreFull: the run directory cannot be written.
    """
    with core_errors_of_training():
        from sam4em_core.training.config import TrainingConfig  # noqa: PLC0415
        from sam4em_core.training.dual_track import infer_in_memory, train_spatial  # noqa: PLC0415
        from sam4em_core.training.spatial_config import SpatialConfig  # noqa: PLC0415

        _require_one_process()
        file = read_spatial_file(config_path, overrides)
        config = parse_config(file.spatial, SpatialConfig, f"{config_path}: spatial")
        for name in config.parts:
            parse_config(config.values_of(name), TrainingConfig, f"{config_path}: spatial.{name}, with spatial.shared")
        check_apart(file.volumes)
        storage = StorageOptions(**file.storage.model_dump(include={field.name for field in fields(StorageOptions)}))
        _check_segments(file, config.classes, storage)
        masks = config.part("masks")
        sections = {section.name: resolve_dataset(section, storage) for section in file.volumes}

        def infer(checkpoint: Path, subject: Subject, place: Path) -> NDArray[np.uint8]:
            section = sections[subject.name]
            if file.inference.kind == "memory" or section.image is None:
                return infer_in_memory(checkpoint, subject, place, device=masks.device, threads=masks.threads)
            request = _request(file, section, config, subject, checkpoint, place, storage)
            return _cropped(segment(request), subject)

        return train_spatial(
            config,
            [_load_sparse(section, config.classes, storage, hidden=file.score_hidden) for section in file.volumes],
            Path(run_dir or file.run_dir),
            OmeZarrRounds(config.classes),
            auxiliary=[load_volume(section, config.classes, storage) for section in file.auxiliary],
            infer=infer,
            resume=resume,
        )


def read_spatial_file(config_path: str | Path, overrides: Sequence[str] = ()) -> SpatialFile:
    """Read a config of a dual-track training; arguments as in `run_spatial`.

    Raises:
        ConfigError: the file is unreadable, or a value does not fit.
    """
    return parse_config(with_overrides(read_yaml(config_path), overrides), SpatialFile, str(config_path))


def _check_segments(file: SpatialFile, classes: Sequence[str], storage: StorageOptions) -> None:
    """Refuse, before hours of training, what could not be segmented after them.

    Raises:
        ConfigError: a section names a volume that is not there or not stored, or a truth of another class.
        WorldError: a truth or a cluster's file cannot be read.
    """
    volumes = {section.name: section for section in file.volumes}
    for section in file.segment:
        volume = volumes.get(section.volume)
        if volume is None or volume.image is None:
            stored = [name for name, found in volumes.items() if found.image is not None]
            raise ConfigError(
                f"segment: {section.volume!r} is no stored volume of this config; stored are: {', '.join(stored)}"
            )
        if unknown := sorted(set(section.truth) - set(classes)):
            raise ConfigError(
                f"segment: {section.volume}: truth of {', '.join(unknown)}; the classes are {', '.join(classes)}"
            )
        for url in section.truth.values():
            open_volume(url, storage, kind="labels")
        if section.cluster is not None:
            read_yaml(section.cluster)


def _require_one_process() -> None:
    """Refuse torchrun: rounds are driven by one process.

    Raises:
        ConfigError: there are several.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size != "1":
        raise ConfigError(
            f"training in rounds: torchrun started {size} processes; start one (inference.kind: pipeline spreads the "
            "segmentation of a round over workers)"
        )


def _load_sparse(
    section: VolumeSection, classes: Sequence[str], storage: StorageOptions, *, hidden: bool
) -> SparseVolume:
    from sam4em_core.training.subjects import SparseVolume  # noqa: PLC0415

    volume = load_volume(section, classes, storage)
    every = section.model_copy(update={"labelled_slices": None, "labelled_every": None})
    truth = load_volume(every, classes, storage).labels_czyx if hidden else None
    first = 0 if section.region.z is None else section.region.z[0]
    return SparseVolume(volume, truth, _corner(section, storage, volume.voxel_size_zyx_nm), first)


def _corner(
    section: VolumeSection, storage: StorageOptions, size: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Give the lower corner of the part of a volume that is read, nm."""
    start = [0 if extent is None else extent[0] for _, extent in section.region]
    found = resolve_dataset(section, storage)
    corner = None
    if found.image is not None:
        image = open_volume(found.image, storage, voxel_size_zyx_nm=found.voxel_size_zyx_nm, level=found.level)
        corner = image.info.origin_zyx_nm
    low = corner or (-size[0] / 2, -size[1] / 2, -size[2] / 2)
    z, y, x = (at + first * step for at, first, step in zip(low, start, size, strict=True))
    return z, y, x


def _request(
    file: SpatialFile,
    section: VolumeSection,
    config: SpatialConfig,
    subject: Subject,
    checkpoint: Path,
    place: Path,
    storage: StorageOptions,
) -> RoundRequest:
    """Ask for the voxels that a subject was made of.

    Raises:
        ConfigError: the volume is read at a coarser level, or its train range begins inside a working slice.
    """
    if section.level:
        raise ConfigError(
            f"volume {section.name}: inference.kind pipeline segments images at level 0, the volume is read at level "
            f"{section.level}; use inference.kind: memory"
        )
    image = open_volume(str(section.image), storage, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    size = image.require_voxel_size()
    first = subject.first_slice * subject.voxel_size_zyx_nm[0] / size[0]
    if abs(first - round(first)) > 1e-6:
        raise ConfigError(
            f"volume {section.name}: its first working slice begins at slice {first:g} of the image; with "
            "inference.kind pipeline the train range must begin at a whole working slice"
        )
    region = Box.of_shape(image.info.shape)
    starts = [region.start[axis] if extent is None else extent[0] for axis, (_, extent) in enumerate(section.region)]
    lengths = [
        round(extent * working / source)
        for extent, working, source in zip(subject.image_zyx.shape, subject.voxel_size_zyx_nm, size, strict=True)
    ]
    starts[0] += round(first)
    stops = [min(a + n, end) for a, n, end in zip(starts, lengths, region.stop, strict=True)]
    return RoundRequest(
        subject.name,
        checkpoint,
        place,
        str(section.image),
        size,
        Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2])),
        config.classes,
        config.part("masks").device,
        file.inference,
        file.storage.model_dump(mode="json"),
    )


def _cropped(predicted_czyx: NDArray[np.uint8], subject: Subject) -> NDArray[np.uint8]:
    """Leave out the rim that a run's lattice has beyond the whole working voxels."""
    z, y, x = subject.image_zyx.shape
    return predicted_czyx[:, :z, :y, :x]


def describe_rounds(run_dir: str | Path) -> dict[str, Any]:
    """Sum up the rounds of a training that has ended.

    Raises:
        VolumeNotFound: no training has ended there.
    """
    path = Path(run_dir) / "rounds.json"
    if not path.exists():
        raise VolumeNotFound(f"{path} is not there: no dual-track training has ended in {run_dir}")
    summary = json.loads(path.read_text(encoding="utf-8"))
    rows = {}
    for scores in summary["rounds"]:
        hidden = [volume["dice"] for volume in scores["volumes"].values() if "dice" in volume]
        rows[f"round {scores['round']}"] = {
            "start": scores.get("start"),
            "choose_dice": scores["choose_dice"],
            "agreement": scores["agreement"],
            "change": scores["change"],
            "hidden_dice": round(sum(hidden) / len(hidden), 5) if hidden else None,
            "seconds": scores["seconds"],
        }
    return {"best_round": summary["best_round"], "stopped": summary["stopped"], "rounds": rows}
