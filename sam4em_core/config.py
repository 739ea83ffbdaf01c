"""What a model is made of, as data: no torch here, so that a plan can be made on a machine that has none."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sam4em_core.errors import CoreConfigError

# Source: sam2 1.1.0, configs/sam2.1 and configs/sam2: the names that `build_sam2` accepts, without folder and suffix.
OFFICIAL_BACKBONES = tuple(f"{family}_hiera_{size}" for family in ("sam2.1", "sam2") for size in ("t", "s", "b+", "l"))

# The fused embedding lies at this stride; the mask decoder's two up-scalings bring it to stride 2.
EMBEDDING_STRIDE = 8

# Source: Hiera halves the side three times after a patch embedding of stride 4.
SIDE_MULTIPLE = 32

Positive = Annotated[int, Field(ge=1)]
Spacing = tuple[float, float, float]
Factors = tuple[int, int, int]
Nanometers = Annotated[float, Field(gt=0)]
GroupWidth = Annotated[int, Field(ge=8, multiple_of=8)]

# An axis is pooled while its spacing is below this many times the smallest one: half-way to the next factor of two.
_NEAR_ISOTROPIC = 1.5


class UnetConfig(BaseModel):
    """A 3D U-Net that regresses truncated signed distances. Two equal configs give the same field of a volume."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_classes: Positive = 1
    """Number of classes, each with its own signed distance."""
    widths: tuple[GroupWidth, GroupWidth, GroupWidth, GroupWidth] = (8, 24, 48, 96)
    """Channels of the four levels. 32, 64, 128, 256 where there is a GPU."""
    voxel_size_zyx_nm: tuple[Nanometers, Nanometers, Nanometers] = (20.0, 20.0, 20.0)
    """Voxel size of its lattice: 16 to 32 nm."""
    tau_nm: Nanometers = 256.0
    """Distances are cut off here; 8 to 16 voxels."""
    patch_zyx: tuple[Positive, Positive, Positive] = (64, 96, 96)
    """Largest extent of a patch, in its voxels; patches are as much smaller as covers the volume with the fewest."""
    overlap_zyx: tuple[Positive, Positive, Positive] = (8, 12, 12)
    """Overlap of neighboring patches, in its voxels; the field is blended over it."""

    @model_validator(mode="after")
    def _check(self) -> "UnetConfig":
        for patch, overlap, multiple in zip(self.patch_zyx, self.overlap_zyx, self.multiple_zyx, strict=True):
            if patch % multiple:
                raise ValueError(f"patch_zyx {self.patch_zyx} must be a multiple of {self.multiple_zyx} voxels")
            if 2 * overlap > patch:
                raise ValueError(f"overlap_zyx {self.overlap_zyx} is more than half of patch_zyx {self.patch_zyx}")
        if self.tau_nm < 2 * max(self.voxel_size_zyx_nm):
            raise ValueError(
                f"tau_nm {self.tau_nm} is less than two voxels of {self.voxel_size_zyx_nm} nm: that would be a mask"
            )
        return self

    @property
    def pools_zyx(self) -> tuple[Factors, Factors, Factors]:
        """Pooling factors of the three steps down: an axis is left out until the others have caught up with it."""
        spacing, steps = list(self.voxel_size_zyx_nm), []
        for _ in range(3):
            limit = _NEAR_ISOTROPIC * min(spacing)
            factors = [2 if size < limit else 1 for size in spacing]
            spacing = [size * factor for size, factor in zip(spacing, factors, strict=True)]
            steps.append((factors[0], factors[1], factors[2]))
        return steps[0], steps[1], steps[2]

    @property
    def multiple_zyx(self) -> Factors:
        """A patch must be a multiple of this: the product of the pooling factors."""
        first, second, third = self.pools_zyx
        z, y, x = (a * b * c for a, b, c in zip(first, second, third, strict=True))
        return z, y, x


class SdfMemoryConfig(BaseModel):
    """Spatial-SAM's memory: what SAM2's memory encoder made of the neighboring slices' signed distances."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reach: Positive = 6
    """Neighbors on each side (K); 6 takes over SAM2's temporal rows one to one."""
    stride: Positive = 1
    """Slices between two neighbors; more than 1 for thin sections."""
    layers: Positive = 1
    """Layers of SAM2's memory attention; 4 for an official backbone."""
    mlp_dim: Positive = 512
    """Hidden channels of each layer's MLP; 2048 for an official backbone."""
    source: Literal["sdf", "logits"] = "sdf"
    """`sdf`: the U-Net's field, at once. `logits` (ablation): SAM2's own chain of predicted masks, one way."""
    direction: Literal["both", "lower"] = "both"
    """`lower` (ablation): only neighbors of smaller z."""
    include_own: bool = False
    """Ablation: a slice sees its own signed distance too."""
    injection: Literal["gain", "sigmoid"] = "gain"
    """`gain`: g * s / tau, without a sigmoid. `sigmoid` (ablation): SAM2's 20 * sigmoid(g * s / tau) - 10."""
    side_vector: bool = True
    """Whether neighbors before and after differ by a learnt vector, zero at first."""

    @model_validator(mode="after")
    def _check(self) -> "SdfMemoryConfig":
        if self.source == "logits" and (self.direction != "lower" or self.include_own or self.injection != "sigmoid"):
            raise ValueError(
                "source: logits is SAM2's own memory: it goes one way, has no own slice and passes a sigmoid; set "
                "direction: lower, include_own: false and injection: sigmoid"
            )
        return self

    def offsets(self) -> tuple[int, ...]:
        """Slices that a slice looks at, relative to itself, in z order."""
        steps = range(-self.reach, 1 if self.direction == "lower" else self.reach + 1)
        return tuple(step * self.stride for step in steps if step or self.include_own)

    @property
    def reach_slices(self) -> int:
        """Largest distance of a neighbor, in slices."""
        return self.reach * self.stride


class ModelConfig(BaseModel):
    """The architecture of one network. Two equal configs build networks with the same tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str = "small"
    """`small` (a Hiera of the widths below) or an official name such as `sam2.1_hiera_t`."""
    num_classes: Positive = 1
    """Number of classes, each with its own sigmoid: classes may overlap."""
    embed_dim: Positive = 48
    """Channels of the small Hiera's first stage; each stage doubles them."""
    stages: tuple[Positive, Positive, Positive, Positive] = (1, 2, 3, 1)
    """Blocks per stage of the small Hiera (strides 4, 8, 16, 32)."""
    windows: tuple[Positive, Positive, Positive, Positive] = (8, 8, 8, 8)
    """Side of the attention window per stage of the small Hiera, in tokens."""
    global_blocks: tuple[int, ...] = (4, 5)
    """Blocks of the small Hiera that attend to the whole tile; never the first block of a stage."""
    d_model: Annotated[int, Field(ge=64, multiple_of=64)] = 128
    """Channels of the FPN, the fused embedding and both decoders; an eighth of them is normalized in 8 groups. 256 for
    an official backbone."""
    memory: Literal["volume", "sdf", "none"] = "volume"
    """`volume`: 3D attention over the last slices. `sdf`: attention over the signed distances of neighboring
    slices. `none`: every slice by itself."""
    memory_slots: Positive = 4
    """Slices that the memory ring holds (M)."""
    memory_dim: Annotated[int, Field(ge=8, multiple_of=8)] = 64
    """Channels of one memory entry."""
    memory_layers: Positive = 1
    """Memory attention layers."""
    memory_heads: Positive = 4
    """Attention heads of a memory layer; divides memory_dim."""
    two_stage: bool = True
    """Whether a second, refining mask decoder follows the coarse one."""
    decoder_depth: Positive = 2
    """Layers of each decoder's two-way transformer."""
    decoder_heads: Positive = 4
    """Attention heads of each decoder; divides d_model / 2."""
    decoder_mlp_dim: Positive = 512
    """Hidden channels of each decoder's token MLP."""
    lora_rank: Positive = 16
    """Rank of the LoRA adapters on q and v."""
    lora_alpha: Positive = 32
    """LoRA scale: the update is multiplied by alpha / rank."""
    sdf_memory: SdfMemoryConfig = SdfMemoryConfig()
    """With memory: sdf."""
    unet: UnetConfig | None = None
    """With memory: sdf, the U-Net that makes the signed distances; it is part of the network."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.backbone != "small" and self.backbone not in OFFICIAL_BACKBONES:
            raise ValueError(
                f"backbone {self.backbone!r} is unknown; use 'small' or one of {', '.join(OFFICIAL_BACKBONES)}"
            )
        if self.backbone != "small" and self.d_model != 256:
            raise ValueError(f"backbone {self.backbone!r} needs d_model 256, found {self.d_model}")
        first_blocks = {sum(self.stages[:stage]) for stage in range(4)} - {0}
        if first_blocks & set(self.global_blocks):
            raise ValueError(
                f"global_blocks {self.global_blocks} must not hold the first block of a stage {first_blocks}"
            )
        if self.memory_dim % self.memory_heads:
            raise ValueError(f"memory_heads {self.memory_heads} must divide memory_dim {self.memory_dim}")
        if (self.d_model // 2) % self.decoder_heads:
            raise ValueError(f"decoder_heads {self.decoder_heads} must divide d_model / 2 = {self.d_model // 2}")
        self._check_unet()
        return self

    def _check_unet(self) -> None:
        if self.needs_field != (self.unet is not None):
            raise ValueError(
                "memory: sdf needs the U-Net that makes its signed distances (unet)"
                if self.needs_field
                else f"unet is given, but memory: {self.memory} has no use for signed distances"
            )
        if self.unet is not None and self.unet.num_classes != self.num_classes:
            raise ValueError(f"the U-Net has {self.unet.num_classes} classes, the network {self.num_classes}")

    @property
    def needs_field(self) -> bool:
        """Whether the network looks at signed distances."""
        return self.memory == "sdf" and self.sdf_memory.source == "sdf"

    @property
    def needs_square(self) -> bool:
        """Whether tiles must be square: SAM2's memory attention takes the root of the token count as the side."""
        return self.memory == "sdf"

    @classmethod
    def of(cls, values: dict[str, Any]) -> "ModelConfig":
        """Make a config from plain values.

        Raises:
            CoreConfigError: a key is unknown, or a value is out of range; the message names it.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise CoreConfigError(f"model config: {describe_validation(error)}") from error

    @classmethod
    def official(cls, backbone: str, **changes: Any) -> "ModelConfig":
        """The settings that go with an official SAM2 or SAM2.1 backbone; `changes` override single fields.

        Raises:
            CoreConfigError: the backbone is unknown, or a change is not usable.
        """
        # Source: sam2 1.1.0, sam2_base.py `_build_sam_heads`: depth 2, 8 heads, mlp 2048.
        base = {"d_model": 256, "decoder_heads": 8, "decoder_mlp_dim": 2048, "memory_slots": 8}
        # Source: sam2 1.1.0, configs/sam2.1: memory attention of 4 layers, hidden width 2048.
        memory = changes.get("sdf_memory", {})
        if isinstance(memory, dict):
            changes = {**changes, "sdf_memory": {"layers": 4, "mlp_dim": 2048, **memory}}
        return cls.of({**base, "backbone": backbone, **changes})


def describe_validation(error: ValidationError) -> str:
    """One line that names every wrong key, what it was and what would be right."""
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        parts.append(f"{key}: {item['msg']} (found {item['input']!r})" if item["loc"] else item["msg"])
    return "; ".join(parts)
