"""What a run starts from: a network or a U-Net with random weights, or a base; and the U-Net inside a network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sam4em_core.checkpoint import load_checkpoint, load_unet, shortened
from sam4em_core.config import ModelConfig, UnetConfig, describe_validation
from sam4em_core.errors import CoreConfigError
from sam4em_core.header import BASE_SUFFIXES, read_checkpoint_header, read_unet_header, unet_factors
from sam4em_core.model import Sam4emNet, build_model
from sam4em_core.training.errors import TrainingSetupError
from sam4em_core.training.transfer import BaseShare, take_over
from sam4em_core.unet3d import UNet3d, build_unet

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sam4em_core.training.config import TrainingConfig
    from sam4em_core.training.forward import Network

logger = logging.getLogger(__name__)

_MAY_DIFFER = ("num_classes", "two_stage")
_OF_THE_MEMORY = ("memory", "sdf_memory", "unet", "memory_slots", "memory_dim", "memory_layers", "memory_heads")
# Of the memory of signed distances: which entries are read and how; no tensor depends on them.
_SWITCHES = {"stride", "direction", "include_own", "injection"}
# Of a U-Net: what it may have of its own beside its base.
_OF_A_UNET = {"patch_zyx", "overlap_zyx", "num_classes"}


def start_network(config: TrainingConfig) -> Network:
    """Build what a config trains, from random weights or from its base; errors as those of `start_sam`."""
    return start_unet(config) if config.target == "sdf" else start_sam(config)


def start_sam(config: TrainingConfig, unet: UNet3d | None = None, *, says: bool = True) -> Sam4emNet:
    """Build the network that a config trains.

    Args:
        config: the training, of another target than `sdf`.
        unet: the U-Net inside the network; default: that of the file `config.sdf`, else of the base.
        says: whether the log says what comes from the base.

    Raises:
        CoreConfigError: a setting is unknown or out of range.
        CheckpointError: a file is unreadable.
        ArchitectureMismatch: official weights of another size.
        TrainingSetupError: the base or the U-Net does not fit the config.
    """
    model = start_model(config, None if unet is None else unet.config)
    if model.unet is not None:
        try:
            unet_factors(config.voxel_size_zyx_nm, model.unet)
        except ValueError as error:
            raise CoreConfigError(f"training around the U-Net: {error}") from error
    if config.base is None:
        network = build_model(model)
    else:
        network = load_base(Path(config.base), model, config.classes, says=says)
    if config.memory_base is not None:
        _take_memory(network, config.classes, Path(config.memory_base))
    if unet is None and config.sdf is not None:
        unet, _ = load_unet(config.sdf)
    if unet is not None and network.unet is not None:
        network.unet.load_state_dict(unet.state_dict())
    return network


def start_model(config: TrainingConfig, inside: UnetConfig | None = None) -> ModelConfig:
    """Give the architecture that a training config asks for; an official backbone brings its own settings.

    Args:
        config: the training.
        inside: the U-Net inside the network; default: that of the file `config.sdf`, else of the base.

    Raises:
        CoreConfigError: a setting is unknown or out of range.
        TrainingSetupError: the network needs a U-Net and none is named, or the other way round.
    """
    values = {**config.model, "num_classes": len(config.classes)}
    unet = inside or _unet_inside(config)
    if unet is not None:
        values["unet"] = unet.model_dump()
    elif config.sdf is not None:
        raise TrainingSetupError(
            f"sdf is {config.sdf}, but model.memory is not sdf: set model.memory: sdf, or leave it out"
        )
    backbone = values.pop("backbone", "small")
    return ModelConfig.of(values) if backbone == "small" else ModelConfig.official(backbone, **values)


def _unet_inside(config: TrainingConfig) -> UnetConfig | None:
    """Give the U-Net that a network with memory: sdf contains: that of `sdf`, else that of the base."""
    memory = config.model.get("sdf_memory")
    source = memory.get("source", "sdf") if isinstance(memory, dict) else "sdf"
    if config.model.get("memory") != "sdf" or source != "sdf":
        return None
    if config.sdf is not None:
        header = read_unet_header(config.sdf)
        if header.classes != config.classes:
            raise TrainingSetupError(
                f"the U-Net {config.sdf} has the classes {header.classes}, the training {config.classes}; they must be "
                "the same, in the same order"
            )
        return header.unet
    if config.base is not None and not is_official(config.base):
        return read_checkpoint_header(config.base).model.unet
    raise TrainingSetupError(
        "model.memory is sdf and no U-Net is named: train one with target: sdf, and give its checkpoint as training.sdf"
    )


def start_unet(config: TrainingConfig, *, says: bool = True) -> UNet3d:
    """Build the U-Net that a config of target `sdf` trains.

    Args:
        config: the training.
        says: whether the log says what comes from the base.

    Raises:
        CoreConfigError: a setting is unknown or out of range.
        CheckpointError: the base is unreadable.
        TrainingSetupError: a stage's windows, or the base, do not fit the U-Net.
    """
    values = {**config.unet, "num_classes": len(config.classes), "voxel_size_zyx_nm": config.voxel_size_zyx_nm}
    try:
        unet = UnetConfig.model_validate(values)
    except ValueError as error:
        raise CoreConfigError(f"training.unet: {_text_of(error)}") from error
    for stage in config.stages:
        sides = (stage.window_slices, stage.crop_voxels, stage.crop_voxels)
        if any(side % multiple for side, multiple in zip(sides, unet.multiple_zyx, strict=True)) or min(sides) < 3:
            raise TrainingSetupError(
                f"stage {stage.name}: windows of {sides} voxels; the U-Net takes multiples of {unet.multiple_zyx} of "
                "at least 3 slices"
            )
    if config.base is None:
        return build_unet(unet)
    base, header = load_unet(config.base)
    require_fitting_unet(base.config, unet, config.base)
    network = build_unet(unet)
    share = take_over(network, config.classes, base, header.classes)
    if says:
        _log_share(config.base, share)
    return network


def _text_of(error: ValueError) -> str:
    from pydantic import ValidationError  # noqa: PLC0415

    return describe_validation(error) if isinstance(error, ValidationError) else str(error)


def is_official(base: str | Path | None) -> bool:
    """Whether a base is a file of official weights, and not a checkpoint of ours."""
    return base is not None and Path(base).suffix in BASE_SUFFIXES


def load_base(path: Path, model: ModelConfig, classes: tuple[str, ...], *, says: bool = True) -> Sam4emNet:
    """Load what a run starts from: a checkpoint of ours, or official weights of the model's backbone.

    A checkpoint of ours may have other classes, another memory (SDF memory of distances and of carried masks, too), or
    one decoder instead of two: what it does not have begins at random, and the log says what, where it `says` so.

    Raises:
        CheckpointError: the file is unreadable.
        ArchitectureMismatch: official weights of another size.
        TrainingSetupError: it holds a network of other sizes than the config asks for.
    """
    if is_official(path):
        return _load_official_base(path, model, says=says)
    loaded = load_checkpoint(path)
    found = loaded.network.config
    require_fitting_base(found, model, path)
    network = build_model(model)
    share = take_over(network, classes, loaded.network, loaded.header.classes)
    if says:
        _log_share(path, share)
    return network


def _take_memory(network: Sam4emNet, classes: tuple[str, ...], path: Path) -> None:
    model = network.config
    if not is_official(path):
        found = read_checkpoint_header(path).model
        if found.memory != model.memory or not _same(found.sdf_memory, model.sdf_memory, _SWITCHES):
            raise TrainingSetupError(
                f"memory_base {path} has memory: {found.memory}, {found.sdf_memory.model_dump(exclude=_SWITCHES)}; the "
                f"network has memory: {model.memory}, {model.sdf_memory.model_dump(exclude=_SWITCHES)}; set "
                "training.model to match it, or leave memory_base out"
            )
    take_over(network, classes, load_base(path, model, classes, says=False), classes, part="sdf_memory.")


def new_classes(base: str | Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Give the classes that a base does not know; official weights know none.

    Raises:
        CheckpointError: the base is unreadable.
    """
    if is_official(base):
        return classes
    known = read_checkpoint_header(base).classes
    return tuple(name for name in classes if name not in known)


def require_fitting_base(found: ModelConfig, wanted: ModelConfig, path: str | Path) -> None:
    """Refuse to start from a network of other sizes.

    Raises:
        TrainingSetupError: names what differs.
    """
    _require_same_config(found, wanted, path, "training.model", without=_may_differ(found, wanted))


def require_fitting_unet(found: UnetConfig, wanted: UnetConfig, path: str | Path) -> None:
    """Refuse to start from a U-Net of other sizes.

    Raises:
        TrainingSetupError: names what differs.
    """
    _require_same_config(found, wanted, path, "training.unet", without=tuple(_OF_A_UNET))


def _log_share(path: str | Path, share: BaseShare) -> None:
    if share.random or share.new_classes:
        logger.info(
            "base %s: %d tensors taken over, %d begin at random (%s)%s",
            path,
            len(share.taken),
            len(share.random),
            shortened(list(share.random)),
            f"; it does not know the classes {', '.join(share.new_classes)}" if share.new_classes else "",
        )


def _may_differ(found: ModelConfig, wanted: ModelConfig) -> tuple[str, ...]:
    """Name the settings that a network may have of its own beside its base; sizes are none of them."""
    if found.memory != wanted.memory:
        return (*_MAY_DIFFER, *_OF_THE_MEMORY)
    if wanted.memory == "sdf" and found.sdf_memory.source != wanted.sdf_memory.source:
        return (*_MAY_DIFFER, "sdf_memory", "unet")
    own = ("sdf_memory",) if _same(found.sdf_memory, wanted.sdf_memory, _SWITCHES) else ()
    if found.unet is not None and wanted.unet is not None and _same(found.unet, wanted.unet, _OF_A_UNET):
        own = (*own, "unet")
    return (*_MAY_DIFFER, *own)


def _same(one: BaseModel, other: BaseModel, without: set[str]) -> bool:
    return one.model_dump(exclude=without) == other.model_dump(exclude=without)


def _require_same_config(
    found: BaseModel, wanted: BaseModel, path: str | Path, section: str, without: tuple[str, ...] = ()
) -> None:
    there, asked = found.model_dump(), wanted.model_dump()
    changed = [
        f"{key} {there[key]} instead of {asked[key]}"
        for key in asked
        if key not in without and asked[key] != there[key]
    ]
    if changed:
        raise TrainingSetupError(
            f"the base {path} has another architecture: {'; '.join(changed)}; set {section} to match it"
        )


def _load_official_base(path: Path, model: ModelConfig, *, says: bool) -> Sam4emNet:
    if model.backbone == "small":
        raise TrainingSetupError(
            f"the base {path} is a file of official weights, the model's backbone is 'small'; set training.model."
            "backbone to its name, such as sam2.1_hiera_t"
        )
    # Imports sam2's builder and Hydra: runs without official weights need neither.
    from sam4em_core.official import load_official  # noqa: PLC0415

    network = build_model(model)
    report = load_official(network, path)
    if says:
        logger.info(
            "base %s: %d tensors filled, the image encoder strictly; %d of the decoders stay random (%s); %d of the "
            "file are not used",
            path,
            len(report.loaded),
            len(report.missing),
            shortened(list(report.missing)),
            len(report.unexpected),
        )
    return network
