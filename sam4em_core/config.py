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
    d_model: Annotated[int, Field(ge=32, multiple_of=32)] = 128
    """Channels of the FPN, the fused embedding and both decoders; 256 for an official backbone."""
    memory: Literal["volume", "none"] = "volume"
    """`volume`: 3D attention over the last slices. `none`: every slice by itself."""
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
        return self

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
        return cls.of({**base, "backbone": backbone, **changes})


def describe_validation(error: ValidationError) -> str:
    """One line that names every wrong key, what it was and what would be right."""
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        parts.append(f"{key}: {item['msg']} (found {item['input']!r})" if item["loc"] else item["msg"])
    return "; ".join(parts)
