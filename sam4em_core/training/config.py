"""What a training run is told: the stages and everything around them; `sections` has the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictStr, model_validator

from sam4em_core.config import UnetConfig
from sam4em_core.training.sections import (
    AugmentConfig,
    ClassLossConfig,
    Count,
    Fraction,
    Frozen,
    LossConfig,
    NaturalNumber,
    Positive,
    SamplingConfig,
    ValidationConfig,
)

__all__ = [
    "AugmentConfig",
    "ClassLossConfig",
    "LossConfig",
    "Recipe",
    "SamplingConfig",
    "StageConfig",
    "TrainingConfig",
    "ValidationConfig",
]

# Slices beside a choose range: for a chain to be warm, and for a U-Net to see as much as in a whole volume.
_CHAIN_CONTEXT = 4
# A whole patch of the U-Net, whose slices are as thick as two where it works at twice the voxel size.
_UNET_CONTEXT = 2 * UnetConfig.model_fields["patch_zyx"].default[0]

Recipe = Literal["pretrain", "lora-encoder", "lora-decoder", "full", "polish"]


class StageConfig(Frozen):
    """One stage of training. Stages run in the order given."""

    name: StrictStr
    """Name in the log."""
    recipe: Recipe
    """`pretrain` and `full`: all parameters. `lora-encoder` (stage A): encoder LoRA, fusion, memory and
    coarse decoder. `lora-decoder` (stage B): refined decoder through its own LoRA, and the skip. `polish`: all
    parameters together after A and B; give it a low rate."""
    steps: Count
    """Optimiser steps."""
    limit_minutes: Positive | None = None
    """Time limit of the stage, minutes of `clock`: the learning rate then falls with whichever of steps and
    minutes is further on, and a resumed run no longer repeats the losses of an undisturbed one."""
    batch_windows: Count = 2
    """Windows per step."""
    window_slices: Count = 8
    """Consecutive slices of a window (T)."""
    crop_voxels: Count = 192
    """Side of a window in y and x, voxels of the working lattice; a multiple of 32."""
    learning_rate: Positive = 1e-3
    """Largest learning rate."""
    encoder_rate_fraction: Fraction = 1.0
    """Learning rate of the image encoder as a fraction of `learning_rate`; 0 freezes it."""
    memory_rate_fraction: Fraction = 1.0
    """Learning rate of the 3D memory attention as a fraction of `learning_rate`."""
    final_rate_fraction: Fraction = 0.01
    """Learning rate at the end as a fraction of `learning_rate`."""
    warmup_steps: NaturalNumber = 50
    """Steps over which the learning rate rises linearly from zero."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    """AdamW's decoupled weight decay."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient."""
    prompt_dropout: Fraction = 0.3
    """Chance that a slice sees `no mask yet` in place of the previous mask."""
    memory_dropout: Fraction = 0.2
    """Chance that a slice sees an empty memory."""
    mask_faults: Fraction = 0.0
    """Chance that a slice leaves a wrong mask in the memory (its own, half a crop away), so that mistakes of
    the memory are not carried on."""
    truncate_every: Count = 4
    """Slices between two cuts of back-propagation through time."""
    neighbor_dropout: Fraction = 0.2
    """memory: sdf: chance that a neighbor is left out."""
    lora_rank: Count = 16
    """Rank of the LoRA adapters; LoRA stages only."""
    lora_alpha: Count = 32
    """Scale of the LoRA adapters; LoRA stages only."""

    @model_validator(mode="after")
    def _check_crop(self) -> StageConfig:
        if self.crop_voxels % 32:
            raise ValueError(f"crop_voxels is {self.crop_voxels}; it must be a multiple of 32")
        return self


CARRIED = "carried"
"""The one class of a network that carries masks of whatever class, one at a time."""


class TrainingConfig(Frozen):
    """A whole training run, volumes aside."""

    name: StrictStr
    """Name of the model."""
    target: Literal["masks", "sdf", "propagation"] = "masks"
    """`masks`: a network that segments. `sdf`: a 3D U-Net of signed distances, for a network with memory: sdf.
    `propagation`: a network that carries the mask of a window's first slice through the others."""
    seed: NaturalNumber = 0
    """Seed of every random draw."""
    device: StrictStr = "auto"
    """`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one."""
    threads: Count = 1
    """Threads of the tensor library; part of what makes losses repeat."""
    clock: Literal["wall", "cpu"] = "wall"
    """What minutes and seconds mean, in limits and in the log: time that passes, or processor time of this process,
    which other work on the same machine takes less from. `cpu` is for training on one thread without a GPU."""
    classes: tuple[StrictStr, ...]
    """Class names, one sigmoid each, in channel order."""
    voxel_size_zyx_nm: tuple[Positive, Positive, Positive] = (8.0, 8.0, 8.0)
    """Working voxel size, nm."""
    voxel_size_range_nm: tuple[Positive, Positive] = (4.0, 16.0)
    """Smallest and largest voxel size of an image that the model accepts, nm."""
    window_slices: Count = 20
    """Slices of one inference window (S)."""
    warmup_slices: NaturalNumber = 4
    """Warm-up slices on each side of an inference window (W)."""
    tile_voxels: Count = 256
    """Side of an inference tile, voxels; a multiple of 32."""
    tile_overlap_voxels: NaturalNumber = 32
    """Overlap of neighbouring tiles, voxels."""
    model: dict[str, Any] = Field(default_factory=dict)
    """Settings of the network, by name; see `sam4em_core.config`."""
    unet: dict[str, Any] = Field(default_factory=dict)
    """target: sdf: settings of the U-Net, by name; see `sam4em_core.config.UnetConfig`. It works at
    `voxel_size_zyx_nm`."""
    sdf: StrictStr | None = None
    """memory: sdf: the checkpoint of a U-Net (target: sdf). It becomes part of the network and is not trained."""
    base: StrictStr | None = None
    """What to start from: a checkpoint of ours, or official weights (.pt) of `model.backbone`; none for stage 0."""
    memory_base: StrictStr | None = None
    """memory: sdf: what the memory starts from, in place of `base`: for a base that knows the classes and has seen no
    signed distances. Official weights, or a checkpoint of ours."""
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    """Type of the forward pass; bfloat16 is autocast. `auto`: bfloat16 where the device computes with it, float32
    elsewhere: a processor that must emulate it takes several times as long."""
    compile: StrictBool = False
    """Compile encoder and decoders (torch.compile): pays on a GPU, after minutes; changes rounding."""
    gradient_checkpointing: StrictBool = False
    """Compute each encoder block again in the backward pass instead of keeping what it held: less memory, more time."""
    tensorboard: StrictBool = True
    """Also log to the run directory's `tensorboard` folder, where that package is installed."""
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.998
    """Decay of the running mean of weights; 0 switches it off."""
    checkpoint_every_steps: Count = 200
    """Steps between two states that a killed run can resume from."""
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    """Stages in order."""
    sampling: SamplingConfig = SamplingConfig()
    """Where windows are taken."""
    augment: AugmentConfig = AugmentConfig()
    """How windows are varied."""
    loss: LossConfig = LossConfig()
    """Weights of the loss."""
    validation: ValidationConfig = ValidationConfig()
    """How the choose slices are scored."""
    card: dict[str, StrictStr] = Field(default_factory=dict)
    """Model card: `data`, `license`, `command`, `hardware` as text."""

    @model_validator(mode="after")
    def _check_classes(self) -> TrainingConfig:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes are {self.classes}; give at least one, each name once")
        if len({stage.name for stage in self.stages}) != len(self.stages):
            raise ValueError("two stages have the same name")
        strangers = sorted(set(self.loss.per_class) - set(self.classes))
        if strangers:
            raise ValueError(f"loss.per_class names {strangers}; the classes are {self.classes}")
        self._check_axes()
        offsets = self.validation.window_offsets
        if not offsets or max(offsets) > self.context_slices:
            raise ValueError(
                f"validation.window_offsets are {offsets}; give at least one, none above context_slices "
                f"({self.context_slices})"
            )
        if self.clock == "cpu" and self.threads > 1:
            raise ValueError(
                f"clock: cpu counts the time of all threads together; set threads (now {self.threads}) to 1"
            )
        self._check_target()
        return self

    def _check_axes(self) -> None:
        if self.sampling.other_axes_fraction > 0 and len(set(self.voxel_size_zyx_nm)) > 1:
            raise ValueError(
                "sampling.other_axes_fraction needs voxels that are cubes; voxel_size_zyx_nm is "
                f"{self.voxel_size_zyx_nm}"
            )

    def _check_target(self) -> None:
        if self.target == "propagation":
            self._check_propagation()
        if self.memory_base is not None and (self.target == "sdf" or self.model.get("memory") != "sdf"):
            raise ValueError("memory_base is for a network with model.memory: sdf; leave it out")
        if self.target != "sdf":
            if self.unet:
                raise ValueError("unet is for target: sdf; a network that segments names its U-Net's checkpoint (sdf)")
            return
        if self.model or self.sdf is not None or self.compile or self.gradient_checkpointing:
            raise ValueError(
                "target: sdf trains a U-Net: model, sdf, compile and gradient_checkpointing are not for it"
            )
        lora = [stage.name for stage in self.stages if stage.recipe.startswith("lora")]
        if lora:
            raise ValueError(f"stages {lora} use LoRA; target: sdf knows pretrain, full and polish")
        if self.augment.geometric and (self.augment.scale_fraction > 0 or self.augment.elastic_voxels > 0):
            raise ValueError(
                "target: sdf: scaling and warping change distances; set augment.scale_fraction and "
                "augment.elastic_voxels to 0 (turns and flips stay)"
            )
        if self.augment.geometric and self.voxel_size_zyx_nm[1] != self.voxel_size_zyx_nm[2]:
            raise ValueError(
                "target: sdf: turning needs the same voxel size along y and x; set augment.geometric: false"
            )

    def _check_propagation(self) -> None:
        memory = self.model.get("sdf_memory")
        source = memory.get("source") if isinstance(memory, dict) else None
        if self.model.get("memory") != "sdf" or source != "logits":
            raise ValueError(
                "target: propagation needs SAM2's own memory: set model.memory: sdf and model.sdf_memory: {source: "
                "logits, direction: lower, injection: sigmoid}"
            )
        short = [stage.name for stage in self.stages if stage.window_slices < 2]
        if short:
            raise ValueError(f"stages {short}: a mask is carried through windows of at least 2 slices")

    @property
    def context_slices(self) -> int:
        """Slices read beyond a choose range on each side: as given, else 128 around a U-Net and 4 without one."""
        if self.validation.context_slices is not None:
            return self.validation.context_slices
        memory = self.model.get("sdf_memory") or {}
        looks_at_fields = self.model.get("memory") == "sdf" and memory.get("source") != "logits"
        return _UNET_CONTEXT if self.target == "sdf" or looks_at_fields else _CHAIN_CONTEXT

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)
