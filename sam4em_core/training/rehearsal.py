"""Whether every training of a dual-track run could begin: found out before hours go into the first of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sam4em_core.config import describe_validation
from sam4em_core.errors import CoreError
from sam4em_core.training.data import check_cubes
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.finetune import prepare_stage
from sam4em_core.training.starting import require_fitting_base, require_fitting_unet, start_sam, start_unet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sam4em_core.config import ModelConfig
    from sam4em_core.training.spatial_config import SpatialConfig
    from sam4em_core.training.subjects import Subject
    from sam4em_core.unet3d import UNet3d


def rehearse(config: SpatialConfig, subjects: Sequence[Subject]) -> None:
    """Build every network that will be trained, as its part says, and forget it.

    Raises:
        TrainingSetupError: a value of a part, its base or the volumes do not fit; names the part.
        CoreConfigError: a setting of a network is unknown or out of range; names the part.
        CheckpointError: a base is unreadable; names the part.
    """
    for name in config.parts:
        with _naming(name):
            _require_cubes(config, name, subjects)
    unet = _unet(config, "sdf")
    masks = _network(config, "masks", unet)
    first = {name: _network(config, name) for name in config.parts if name in ("auxiliary", "propagation", "direct")}
    if {"auxiliary", "propagation"} <= first.keys():
        with _naming("propagation"):
            require_fitting_base(first["auxiliary"], first["propagation"], "of the auxiliary volumes")
    start = config.round_zero.start
    for name in () if "base" in config.masks else ("propagation", "direct"):
        if name in first and start in (name, "best"):
            with _naming("masks"):
                require_fitting_base(first[name], masks, f"of round 0 ({name})")
    if "later_sdf" in config.parts:
        later = _unet(config, "later_sdf")
        with _naming("later_sdf"):
            require_fitting_unet(unet.config, later.config, "of round 1")
        model = _network(config, "later_masks", later)
        with _naming("later_masks"):
            require_fitting_base(masks, model, "of round 1")


def _unet(config: SpatialConfig, name: str) -> UNet3d:
    with _naming(name):
        part = config.part(name)
        unet = start_unet(part)
        prepare_stage(unet, part.stages[0])
        return unet


def _network(config: SpatialConfig, name: str, unet: UNet3d | None = None) -> ModelConfig:
    with _naming(name):
        part = config.part(name)
        network = start_sam(part, unet)
        prepare_stage(network, part.stages[0])
        return network.config


def _require_cubes(config: SpatialConfig, name: str, subjects: Sequence[Subject]) -> None:
    """Refuse windows along other axes where pseudo-labels have no cubes; they are on the lattice of the masks."""
    if config.part(name).sampling.other_axes_fraction > 0:
        check_cubes([subject.as_volume(subject.name, subject.truth_czyx) for subject in subjects])


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say in an error which part it is about."""
    try:
        yield
    except ValidationError as error:
        raise TrainingSetupError(f"{name}: {describe_validation(error)}") from error
    except CoreError as error:
        raise type(error)(f"{name}: {error}") from error
