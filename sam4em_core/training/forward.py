"""One forward pass of whatever is trained, from a batch of windows to a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sam4em_core.model import Sam4emNet
from sam4em_core.neighborhood import MemoryFaults, forward_fields, forward_propagation
from sam4em_core.training.losses import segmentation_loss
from sam4em_core.training.sdf_loss import sdf_loss
from sam4em_core.training.speed import forward_precision, training_attention
from sam4em_core.unet3d import UNet3d

if TYPE_CHECKING:
    from collections.abc import Callable

    from sam4em_core.training.config import StageConfig, TrainingConfig

Network = Sam4emNet | UNet3d
"""What can be trained: a network of masks, or a U-Net of signed distances."""


@dataclass(frozen=True)
class Batch:
    """Windows of one step."""

    origins: tuple[str, ...]
    """Where each window lies, for messages."""
    image_BTHW: torch.Tensor
    """Grey values in [0, 1]."""
    labels_BTCHW: torch.Tensor
    """Truth, uint8: 0, 1, or 255 for unlabelled."""
    share_B: torch.Tensor
    """What each window weighs in the loss; 1 for a window of truth."""
    field_BTCHW: torch.Tensor | None = None
    """Signed distance / tau, NaN where it is unknown; None where nothing needs it."""


def loss_of(
    network: Network,
    batch: Batch,
    config: TrainingConfig,
    stage: StageConfig,
    device: torch.device,
    generator: torch.Generator,
    pooled: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Give the loss of a batch.

    Args:
        network: in train mode.
        batch: windows.
        config: the run.
        stage: the present stage.
        device: where the network is.
        generator: source of what is dropped.
        pooled: adds the sums of other processes.
    """
    image = batch.image_BTHW.to(device)
    field = None if batch.field_BTCHW is None else batch.field_BTCHW.to(device)
    autocast = forward_precision(config.dtype, device)
    attention = training_attention(device, stage.crop_voxels, recomputes=config.gradient_checkpointing)
    with attention, autocast:
        if isinstance(network, UNet3d):
            output = network(image[:, None]).transpose(1, 2)
        elif config.target == "propagation":
            masks = _forward_propagation(network, image, batch.labels_BTCHW[:, 0].to(device), stage, generator)
        elif network.sdf_memory is not None:
            masks = _forward_neighbors(network, image, field, stage, generator)
        else:
            masks = _forward_window(network, image, stage, generator)
    if isinstance(network, UNet3d):
        truth = torch.full_like(output, float("nan")) if field is None else field
        labels, spacing_nm = batch.labels_BTCHW.to(device), config.voxel_size_zyx_nm
        return sdf_loss(output, truth, labels, spacing_nm, network.config.tau_nm, config.loss, pooled)
    # A window's first slice is given where masks are carried.
    labels = batch.labels_BTCHW[:, 1:] if config.target == "propagation" else batch.labels_BTCHW
    return segmentation_loss(
        *masks, labels.to(device), config.loss, classes=config.classes, pooled=pooled, share_B=batch.share_B.to(device)
    )


def _forward_window(
    network: Sam4emNet, image_BTHW: torch.Tensor, stage: StageConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    output = network.forward_window(
        image_BTHW,
        prompt_dropout=stage.prompt_dropout,
        memory_dropout=stage.memory_dropout,
        mask_faults=stage.mask_faults,
        truncate_every=stage.truncate_every,
        generator=generator,
    )
    return output.coarse_BTKHW, output.refined_BTKHW


def _forward_propagation(
    network: Sam4emNet,
    image_BTHW: torch.Tensor,
    first_BCHW: torch.Tensor,
    stage: StageConfig,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry the first slice's mask; where its truth is unknown it counts as outside."""
    output = forward_propagation(
        network,
        image_BTHW,
        (first_BCHW == 1).float(),
        faults=_faults(stage),
        truncate_every=stage.truncate_every,
        generator=generator,
    )
    return output.coarse_BTKHW, output.refined_BTKHW


def _faults(stage: StageConfig) -> MemoryFaults:
    return MemoryFaults(neighbor_dropout=stage.neighbor_dropout, memory_dropout=stage.memory_dropout)


def _forward_neighbors(
    network: Sam4emNet,
    image_BTHW: torch.Tensor,
    field_BTCHW: torch.Tensor | None,
    stage: StageConfig,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    output = forward_fields(
        network,
        image_BTHW,
        None if field_BTCHW is None else field_BTCHW.nan_to_num(-1.0),
        faults=_faults(stage),
        truncate_every=stage.truncate_every,
        generator=generator,
    )
    return output.coarse_BTKHW, output.refined_BTKHW
