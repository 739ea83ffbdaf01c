"""From a training config file to a trained model: reads or draws the volumes, then calls the core.

The core trains on arrays and knows no store; this module is its only caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from pipeline.config.read import parse_config, read_yaml
from pipeline.config.schema import StorageSection
from pipeline.errors import ConfigError, StoreFull, TrainingError, WeightsError
from pipeline.geometry import Box
from pipeline.phantom import PhantomSpec, render
from pipeline.storage import StorageOptions, open_volume

if TYPE_CHECKING:
    from sam4em_core.training import TrainingVolume

Natural = Annotated[StrictInt, Field(ge=0)]
SliceRange = tuple[Natural, Natural]
_UNLABELLED = 255
_ORIGIN = (0, 0, 0)


class _Frozen(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhantomSection(_Frozen):
    """A phantom to draw; every field but the labels is one of `PhantomSpec`."""

    seed: StrictInt
    """Seed of the tissue."""
    shape_zyx: tuple[StrictInt, StrictInt, StrictInt]
    """Extent, voxels."""
    voxel_size_zyx_nm: tuple[float, float, float]
    """Voxel size, nm."""
    noise_sigma: float | None = None
    """Standard deviation of the noise, grey values of 0..255; the phantom's default where absent."""
    contrast_drift_fraction: float | None = None
    """Slow relative change of brightness; the phantom's default where absent."""
    section_jitter_nm: float | None = None
    """Sideways displacement of the sections, nm; the phantom's default where absent."""
    missing_section_fraction: float | None = None
    """Share of blank sections; the phantom's default where absent."""
    damaged_section_fraction: float | None = None
    """Share of damaged sections; the phantom's default where absent."""


class VolumeSection(_Frozen):
    """One volume to train on or to choose by: stored, or a phantom."""

    name: StrictStr
    """Name in the log."""
    image: StrictStr | None = None
    """Path or URL of the image; absent for a phantom."""
    phantom: PhantomSection | None = None
    """A phantom in place of an image; its labels are named in `labels` too."""
    labels: dict[StrictStr, StrictStr]
    """Class name -> path or URL of its labels (0 is background), or, for a phantom, the layer: neurites,
    mitochondria, synapses, glia."""
    voxel_size_zyx_nm: tuple[float, float, float] | None = None
    """Voxel size, nm; by default from the image's metadata."""
    unlabelled: Natural | None = None
    """Label of voxels whose truth is unknown; absent: every voxel is labelled."""
    labelled_slices: tuple[Natural, ...] | None = None
    """Slices whose truth is known; absent: all. The others do not train."""
    read_slices: Annotated[StrictInt, Field(ge=1)] | None = None
    """How many slices are read, from the first; absent: all. What lies beyond is never touched."""
    train: SliceRange | None = None
    """Slices to train on, half-open."""
    choose: SliceRange | None = None
    """Slices that choose model and thresholds, half-open."""

    @model_validator(mode="after")
    def _check_source(self) -> VolumeSection:
        if (self.image is None) == (self.phantom is None):
            raise ValueError("give either image or phantom")
        for split in (self.train, self.choose):
            if split is not None and self.read_slices is not None and split[1] > self.read_slices:
                raise ValueError(f"range {split} lies beyond the {self.read_slices} slices that are read")
        return self


class TrainingFile(_Frozen):
    """A training config file: the volumes, and what the core is told."""

    volumes: tuple[VolumeSection, ...] = Field(min_length=1)
    """Volumes, each with its splits."""
    training: dict[str, Any]
    """The core's settings; see `sam4em_core.training.config.TrainingConfig`."""
    storage: StorageSection = StorageSection()
    """How stores are reached."""
    run_dir: StrictStr = "train-run"
    """Directory of the run, unless the command names one."""


def run_training(
    config_path: str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    run_dir: str | Path | None = None,
) -> Path:
    """Train a model as a config file says.

    Args:
        config_path: a YAML file.
        overrides: `key=value` pairs with dotted keys, such as `training.seed=3`.
        resume: go on from the state in the run directory.
        run_dir: where the run is written; by default what the file says.

    Returns:
        The best checkpoint.

    Raises:
        ConfigError: the file, a value, or the volumes do not fit.
        TrainingError: training cannot go on.
        WeightsError: the base or the saved state is unreadable.
        StoreFull: the run directory cannot be written.
    """
    with _core_errors():
        from sam4em_core.training import TrainingConfig, train  # noqa: PLC0415

        values = with_overrides(read_yaml(config_path), overrides)
        file = parse_config(values, TrainingFile, str(config_path))
        config = parse_config(file.training, TrainingConfig, f"{config_path}: training")
        storage = StorageOptions(**file.storage.model_dump())
        volumes = [load_volume(section, config.classes, storage) for section in file.volumes]
        return train(config, volumes, Path(run_dir or file.run_dir), resume=resume)


def with_overrides(values: Any, overrides: Sequence[str]) -> Any:
    """Set dotted keys in what a YAML file held; a number names an item of a list.

    Raises:
        ConfigError: an override has no `=`, or a key on the way holds no keys of its own.
    """
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"override {override!r}: expected key=value, such as training.seed=3")
        _set_key(values, key, yaml.safe_load(text), override)
    return values


def _set_key(values: Any, key: str, value: object, override: str) -> None:
    *way, last = key.split(".")
    place = values
    try:
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ConfigError(f"override {override!r}: there is no key {key!r} in the config") from error


def load_volume(section: VolumeSection, classes: Sequence[str], storage: StorageOptions) -> TrainingVolume:
    """Read or draw one volume into arrays.

    Raises:
        ConfigError: its classes are not those of the training.
    """
    if set(section.labels) != set(classes):
        raise ConfigError(
            f"volume {section.name}: labels are given for {sorted(section.labels)}, "
            f"the training's classes are {sorted(classes)}"
        )
    if section.phantom is not None:
        return _draw_phantom(section, section.phantom, classes)
    return _read_volume(section, classes, storage)


def _draw_phantom(section: VolumeSection, phantom: PhantomSection, classes: Sequence[str]) -> TrainingVolume:
    from sam4em_core.training import TrainingVolume  # noqa: PLC0415

    spec = PhantomSpec(**phantom.model_dump(exclude_none=True))
    block = render(spec, spec.box, want=("image", *section.labels.values()))
    layers = [getattr(block, f"{section.labels[name]}_zyx") for name in classes]
    labels = np.stack([_known(layer, section) for layer in layers])
    if block.image_zyx is None:
        raise ConfigError(f"volume {section.name}: the phantom has no image")
    return TrainingVolume(section.name, block.image_zyx, labels, spec.voxel_size_zyx_nm, section.train, section.choose)


def _read_volume(section: VolumeSection, classes: Sequence[str], storage: StorageOptions) -> TrainingVolume:
    from sam4em_core.training import TrainingVolume  # noqa: PLC0415

    image = open_volume(str(section.image), storage, voxel_size_zyx_nm=section.voxel_size_zyx_nm)
    shape = image.info.shape
    box = Box.of_shape((min(shape[0], section.read_slices or shape[0]), shape[1], shape[2]))
    voxel_size = image.require_voxel_size()
    labels = []
    for name in classes:
        source = open_volume(section.labels[name], storage, kind="labels")
        if source.info.shape != shape:
            raise ConfigError(
                f"volume {section.name}: the labels of {name} have shape {source.info.shape}, the image {shape}"
            )
        labels.append(_known(source.read(box), section))
    return TrainingVolume(
        section.name,
        image.read(box),
        np.stack(labels),
        voxel_size,
        train=section.train,
        choose=section.choose,
    )


def _known(labels_zyx: NDArray[Any], section: VolumeSection) -> NDArray[np.uint8]:
    """Turn ids into 0 / 1 / unlabelled."""
    result = (labels_zyx != 0).astype(np.uint8)
    if section.unlabelled is not None:
        result[labels_zyx == section.unlabelled] = _UNLABELLED
    if section.labelled_slices is not None:
        unknown = np.ones(len(result), dtype=bool)
        unknown[list(section.labelled_slices)] = False
        result[unknown] = _UNLABELLED
    return result


@contextmanager
def _core_errors() -> Iterator[None]:
    """Turn the core's errors into the pipeline's, by who must act."""
    from sam4em_core import errors as core  # noqa: PLC0415
    from sam4em_core.training import errors as training  # noqa: PLC0415

    try:
        yield
    except (core.CoreConfigError, core.ImageShapeError, training.TrainingSetupError) as error:
        raise ConfigError(str(error)) from error
    except core.CheckpointError as error:
        raise WeightsError(str(error)) from error
    except training.TrainingDiskError as error:
        raise StoreFull(str(error)) from error
    except core.CoreError as error:
        raise TrainingError(str(error)) from error
