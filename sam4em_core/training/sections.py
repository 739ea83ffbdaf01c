"""The sections of a training config that say how windows are drawn, varied, weighed and scored.

Every model is frozen and refuses unknown keys; every field has its unit in a literal below it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[StrictInt, Field(ge=1)]
NaturalNumber = Annotated[StrictInt, Field(ge=0)]
CrossEntropy = Literal["bce", "focal"]


class Frozen(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class AugmentConfig(Frozen):
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
    hidden_fraction: Fraction = 0.0
    """Chance of every slice but a window's first to show nothing but one grey value, its truth kept: what a memory is
    learnt from. Single slices are never hidden."""


class ClassLossConfig(Frozen):
    """How one class differs from the others in the loss."""

    cross_entropy: CrossEntropy | None = None
    """`bce` or `focal`; absent: as for all classes."""
    weight: Positive = 1.0
    """Weight of this class among the classes."""


class LossConfig(Frozen):
    """Weights of the loss. Each class has its own cross entropy and Dice; their weighted mean counts."""

    cross_entropy: CrossEntropy = "bce"
    """`bce`, or `focal`: voxels that are right already count less (Lin et al. 2017)."""
    focal_gamma: Annotated[float, Field(ge=0.0, le=5.0)] = 2.0
    """Exponent of the focal loss; 0 is `bce`."""
    bce_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the cross entropy."""
    dice_weight: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of soft Dice."""
    coarse_weight: Fraction = 0.5
    """Weight of the coarse decoder's loss; the refined decoder has 1 - this."""
    dice_smoothing_voxels: Positive = 100.0
    """Added to both sides of the Dice fraction, voxels: an empty window scores near 1, not 0."""
    boundary_weight: Annotated[float, Field(ge=0.0)] = 0.0
    """Voxels on the truth's border count 1 + this in the cross entropy; 0 switches it off."""
    boundary_sigma_voxels: Positive = 2.0
    """How fast that falls with the distance from the border, voxels of the working lattice."""
    eikonal_weight: Annotated[float, Field(ge=0.0)] = 0.1
    """target: sdf: weight of the slope beside the squared error."""
    surface_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """target: sdf: weight of the mask inside the zero level, `bce_weight` of its cross entropy and `dice_weight` of
    its Dice, beside the squared error."""
    per_class: dict[str, ClassLossConfig] = Field(default_factory=dict)
    """Classes that differ from the others, by name."""


class SamplingConfig(Frozen):
    """Where windows are taken."""

    foreground_fraction: Fraction = 0.6
    """Share of windows centred on a voxel of a class (classes in turn); the rest lie anywhere."""
    keep_background_probability: Fraction = 0.5
    """Chance of keeping a window drawn anywhere that has almost no foreground."""
    background_below_fraction: Fraction = 0.005
    """A window with a smaller share of foreground counts as almost empty."""
    other_axes_fraction: Fraction = 0.0
    """Share of windows whose slices follow one another along y or x in place of z: other views of the same
    tissue. Needs voxels that are cubes, on the working lattice and in the image."""


class ValidationConfig(Frozen):
    """How the choose slices are scored. Scores are counts over the volume, never means over slices."""

    every_steps: Count = 500
    """Steps between two validations."""
    context_slices: NaturalNumber | None = None
    """Slices read beyond the choose range on each side, image only, where the volume has them: the chain is warm then,
    and a U-Net sees as much as in a whole volume. Absent: `TrainingConfig.context_slices`."""
    window_offsets: tuple[NaturalNumber, ...] = (0,)
    """Slices by which inference windows begin before the choose range, one scoring each: how an object is
    carried depends on where its window begins, so a score over several says more. At most `context_slices`."""
    thresholds: tuple[Fraction, ...] = tuple(round(0.2 + 0.05 * index, 2) for index in range(16))
    """Candidate thresholds; the best by volume IoU is stored in the checkpoint."""
    max_slices: Count = 16
    """At most so many slices of a volume's choose range are scored while training."""
    pictures: StrictBool = True
    """Draw the worst and the best slice with truth and prediction."""
