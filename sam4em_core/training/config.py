"""What a training run is told: data handling, stages, losses, augmentation, validation.

Every model is frozen and refuses unknown keys; every field has its unit in a literal below it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[StrictInt, Field(ge=1)]
NaturalNumber = Annotated[StrictInt, Field(ge=0)]
Recipe = Literal["pretrain", "lora-encoder", "lora-decoder", "full"]


class _Frozen(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AugmentConfig(_Frozen):
    """How windows are varied. A probability is per window; 0 switches its part off."""

    geometric: StrictBool = True
    """One random flip, quarter turn, rotation, scale and warp, the same for every slice of a window."""
    rotation_degrees: Annotated[float, Field(ge=0.0, le=180.0)] = 180.0
    """Largest free rotation in the section plane, degrees."""
    scale_fraction: Annotated[float, Field(ge=0.0, le=0.5)] = 0.2
    """Windows are scaled by 1 - this to 1 + this."""
    elastic_voxels: Annotated[float, Field(ge=0.0)] = 3.0
    """Largest shift of the smooth warp, voxels of the working lattice."""
    reverse_probability: Fraction = 0.5
    """Chance of reading a window from high z to low z."""
    contrast_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.3
    """Contrast is multiplied by 1 - this to 1 + this."""
    brightness: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """Largest grey value added; grey values lie in [0, 1]."""
    gamma_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.3
    """The exponent lies in 1 / (1 + this) to 1 + this."""
    noise_sigma: Annotated[float, Field(ge=0.0, le=0.5)] = 0.05
    """Largest standard deviation of added Gaussian noise, grey values in [0, 1]."""
    blur_sigma_voxels: Annotated[float, Field(ge=0.0, le=8.0)] = 1.0
    """Largest standard deviation of the blur of a whole window, voxels."""
    blur_probability: Fraction = 0.2
    """Chance that a window is blurred."""
    fault_probability: Fraction = 0.15
    """Chance of each simulated fault: missing, shifted or blurred slice, contrast step, charging band."""


class StageConfig(_Frozen):
    """One stage of training. Stages run in the order given."""

    name: StrictStr
    """Name in the log."""
    recipe: Recipe
    """`pretrain` and `full`: all parameters. `lora-encoder` (stage A): encoder LoRA, fusion, memory and
    coarse decoder. `lora-decoder` (stage B): refined decoder through its own LoRA, and the skip."""
    steps: Count
    """Optimiser steps."""
    limit_minutes: Positive | None = None
    """Wall-clock limit of the stage, minutes: the learning rate then falls with whichever of steps and
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
    lora_rank: Count = 16
    """Rank of the LoRA adapters; LoRA stages only."""
    lora_alpha: Count = 32
    """Scale of the LoRA adapters; LoRA stages only."""

    @model_validator(mode="after")
    def _check_crop(self) -> StageConfig:
        if self.crop_voxels % 32:
            raise ValueError(f"crop_voxels is {self.crop_voxels}; it must be a multiple of 32")
        return self


class LossConfig(_Frozen):
    """Weights of the loss."""

    bce_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of binary cross entropy."""
    dice_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of soft Dice."""
    coarse_weight: Fraction = 0.5
    """Weight of the coarse decoder's loss; the refined decoder has 1 - this."""
    dice_smoothing_voxels: Positive = 100.0
    """Added to both sides of the Dice fraction, voxels: an empty window scores near 1, not 0."""


class SamplingConfig(_Frozen):
    """Where windows are taken."""

    foreground_fraction: Fraction = 0.6
    """Share of windows centred on a voxel of a class (classes in turn); the rest lie anywhere."""
    keep_background_probability: Fraction = 0.5
    """Chance of keeping a window drawn anywhere that has almost no foreground."""
    background_below_fraction: Fraction = 0.005
    """A window with a smaller share of foreground counts as almost empty."""


class ValidationConfig(_Frozen):
    """How the choose slices are scored. Scores are counts over the volume, never means over slices."""

    every_steps: Count = 500
    """Steps between two validations."""
    context_slices: NaturalNumber = 4
    """Slices read beyond the choose range on each side, image only, so that the chain is warm."""
    window_offsets: tuple[NaturalNumber, ...] = (0,)
    """Slices by which inference windows begin before the choose range, one scoring each: how an object is
    carried depends on where its window begins, so a score over several says more. At most `context_slices`."""
    thresholds: tuple[Fraction, ...] = tuple(round(0.2 + 0.05 * index, 2) for index in range(16))
    """Candidate thresholds; the best by volume IoU is stored in the checkpoint."""
    max_slices: Count = 16
    """At most so many slices of a volume's choose range are scored while training."""

    @model_validator(mode="after")
    def _check_offsets(self) -> ValidationConfig:
        if not self.window_offsets or max(self.window_offsets) > self.context_slices:
            raise ValueError(
                f"window_offsets are {self.window_offsets}; give at least one, none above context_slices "
                f"({self.context_slices})"
            )
        return self


class TrainingConfig(_Frozen):
    """A whole training run, volumes aside."""

    name: StrictStr
    """Name of the model."""
    seed: NaturalNumber = 0
    """Seed of every random draw."""
    device: StrictStr = "auto"
    """`cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one."""
    threads: Count = 1
    """Threads of the tensor library; part of what makes losses repeat."""
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
    base: StrictStr | None = None
    """Checkpoint to start from; none for stage 0."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the forward pass; bfloat16 is autocast."""
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
        return self

    @property
    def total_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages)
