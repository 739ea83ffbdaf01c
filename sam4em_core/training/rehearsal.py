"""Whether every training of a dual-track run could begin: found out before hours go into the first of them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sam4em_core.config import describe_validation
from sam4em_core.errors import CoreError
from sam4em_core.training.data import check_cubes
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.finetune import prepare_stage
from sam4em_core.training.starting import require_fitting_base, require_fitting_unet, start_sam, start_unet
from sam4em_core.training.tracks import mask_start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sam4em_core.config import ModelConfig
    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.spatial_config import SpatialConfig
    from sam4em_core.training.subjects import Subject
    from sam4em_core.unet3d import UNet3d

# Its network is not there yet.
_ROUND_0 = Path("round-0")


def rehearse(config: SpatialConfig, subjects: Sequence[Subject]) -> None:
    """Build every network that will be trained, as its part says, and forget it.

    Raises:
        TrainingSetupError: a value of a part, its base or the volumes do not fit; names the part.
        CoreConfigError: a setting of a network is unknown or out of range; names the part.
        CheckpointError: a base is unreadable; names the part.
    """
    unet = _unet(config, "sdf", subjects)
    with _naming("masks"):
        start = mask_start(config, _ROUND_0)
    masks = _network(config, "masks", subjects, unet, **{key: start[key] for key in start if key != "base"})
    of_round_0 = [name for name in config.parts if name in ("auxiliary", "propagation", "direct")]
    first = {name: _network(config, name, subjects) for name in of_round_0}
    if {"auxiliary", "propagation"} <= first.keys():
        with _naming("propagation"):
            require_fitting_base(first["auxiliary"], first["propagation"], "of the auxiliary volumes")
    for name in ("propagation", "direct") if "base" in start else ():
        if name in first and config.round_zero.start in (name, "best"):
            with _naming("masks"):
                require_fitting_base(first[name], masks, f"of round 0 ({name})")
    if "later_sdf" in config.parts:
        later = _unet(config, "later_sdf", subjects)
        with _naming("later_sdf"):
            require_fitting_unet(unet.config, later.config, "of round 1")
        model = _network(config, "later_masks", subjects, later)
        with _naming("later_masks"):
            require_fitting_base(masks, model, "of round 1")


def _unet(config: SpatialConfig, name: str, subjects: Sequence[Subject]) -> UNet3d:
    with _naming(name):
        part = _part(config, name, subjects)
        unet = start_unet(part, says=False)
        prepare_stage(unet, part.stages[0])
        return unet


def _network(
    config: SpatialConfig, name: str, subjects: Sequence[Subject], unet: UNet3d | None = None, **changes: str
) -> ModelConfig:
    with _naming(name):
        part = _part(config, name, subjects, **changes)
        network = start_sam(part, unet, says=False)
        prepare_stage(network, part.stages[0])
        return network.config


def _part(config: SpatialConfig, name: str, subjects: Sequence[Subject], **changes: str) -> TrainingConfig:
    """Give a part; refuse windows along other axes where the labels, on the lattice of the masks, have no cubes."""
    part = config.part(name, **changes)
    if part.sampling.other_axes_fraction > 0 and name != "auxiliary":
        check_cubes([subject.as_volume(subject.name, subject.truth_czyx) for subject in subjects])
    return part


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say in an error which part it is about."""
    try:
        yield
    except ValidationError as error:
        raise TrainingSetupError(f"{name}: {describe_validation(error)}") from error
    except CoreError as error:
        raise type(error)(f"{name}: {error}") from error
