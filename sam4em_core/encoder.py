"""The image encoder: SAM2's Hiera and FPN, a shallow high-resolution stem, and their fusion.

Shape suffixes: B slices, C channels, H and W the image side, h and w the side at stride 8.
"""

from dataclasses import dataclass

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from torch import Tensor, nn
from torch.nn import functional

from sam4em_core.config import SIDE_MULTIPLE, ModelConfig
from sam4em_core.errors import ImageShapeError

# Source: sam2 1.1.0, utils/transforms.py: mean and standard deviation of ImageNet's three channels.
CHANNEL_MEAN = (0.485, 0.456, 0.406)
CHANNEL_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LevelFeatures:
    """What SAM2's image encoder makes of a batch of slices, before anything is fused."""

    fpn4: Tensor
    """(B, d_model, H/4, W/4)."""
    fpn8: Tensor
    """(B, d_model, H/8, W/8)."""
    fpn16: Tensor
    """Top level, (B, d_model, H/16, W/16): where SAM2's memory attention works."""
    image_B1HW: Tensor
    """The image itself, grey values in [0, 1], (B, 1, H, W)."""

    def chunked(self, size: int) -> list["LevelFeatures"]:
        """Consecutive batches of `size` slices."""
        parts = (self.fpn4, self.fpn8, self.fpn16, self.image_B1HW)
        return [LevelFeatures(*some) for some in zip(*(part.split(size) for part in parts), strict=True)]


@dataclass(frozen=True)
class SliceFeatures:
    """Everything the decoders need of a batch of slices; computed once per slice."""

    embedding_BChw: Tensor
    """Fused embedding, (B, d_model, H/8, W/8)."""
    skip4: Tensor
    """High-resolution skip, (B, d_model/4, H/4, W/4)."""
    skip2: Tensor
    """High-resolution skip of the stem, (B, d_model/8, H/2, W/2)."""
    image_B1HW: Tensor
    """The image itself, grey values in [0, 1], (B, 1, H, W)."""

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All tensors, in the order of the fields."""
        return self.embedding_BChw, self.skip4, self.skip2, self.image_B1HW

    def chunked(self, size: int) -> list["SliceFeatures"]:
        """Consecutive batches of `size` slices."""
        return [SliceFeatures(*parts) for parts in zip(*(t.split(size) for t in self.tensors()), strict=True)]


class NoPosition(nn.Module):
    """Stands in for the neck's position encoding, which nothing here reads."""

    def forward(self, x: Tensor) -> Tensor:
        """Return one zero."""
        return x.new_zeros(1)


def conv_norm(channels_in: int, channels_out: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, GroupNorm (8 groups), GELU; padding keeps the side at stride 1."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.GroupNorm(8, channels_out),
        nn.GELU(),
    )


def build_backbone(config: ModelConfig) -> ImageEncoder:
    """Build SAM2's image encoder (trunk and neck) with random weights."""
    if config.backbone == "small":
        return _small_backbone(config)
    return _official_backbone(config.backbone)


def _small_backbone(config: ModelConfig) -> ImageEncoder:
    trunk = Hiera(
        embed_dim=config.embed_dim,
        stages=config.stages,
        window_spec=config.windows,
        global_att_blocks=config.global_blocks,
        window_pos_embed_bkg_spatial_size=(8, 8),
    )
    nn.init.trunc_normal_(trunk.pos_embed, std=0.02)
    nn.init.trunc_normal_(trunk.pos_embed_window, std=0.02)
    neck = FpnNeck(
        NoPosition(), config.d_model, trunk.channel_list, fpn_interp_model="nearest", fpn_top_down_levels=[2, 3]
    )
    return ImageEncoder(trunk, neck, scalp=1)


def _official_backbone(name: str) -> ImageEncoder:
    import sam2  # noqa: F401, PLC0415 - registers the package's config folder with Hydra
    from hydra import compose  # noqa: PLC0415
    from hydra.utils import instantiate  # noqa: PLC0415

    folder = name.partition("_")[0]
    encoder: ImageEncoder = instantiate(compose(config_name=f"configs/{folder}/{name}.yaml").model.image_encoder)
    encoder.neck.position_encoding = NoPosition()
    return encoder


class Stem(nn.Module):
    """A shallow convolutional path at strides 2 and 4: patch embedding at stride 4 blurs borders, this does not."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        narrow, wide = d_model // 8, d_model // 4
        self.stride2 = nn.Sequential(conv_norm(4, narrow), conv_norm(narrow, narrow))
        self.stride4 = nn.Sequential(conv_norm(narrow, wide, stride=2), conv_norm(wide, wide))

    def forward(self, image_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Features at stride 2 (d_model/8 channels) and stride 4 (d_model/4 channels)."""
        skip2 = self.stride2(functional.pixel_unshuffle(image_B1HW, 2))
        return skip2, self.stride4(skip2)


class Fusion(nn.Module):
    """Fuses strides 16, 8 and 4 into one embedding at stride 8, with GroupNorm."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.from16 = nn.Conv2d(d_model, d_model, 1)
        self.from4 = nn.Conv2d(d_model // 4, d_model, 2, stride=2)
        self.norm = nn.GroupNorm(8, d_model)
        self.mix = nn.Sequential(conv_norm(d_model, d_model), nn.Conv2d(d_model, d_model, 3, padding=1))
        self.skip4 = nn.Conv2d(d_model, d_model // 4, 1)

    def forward(self, fpn4: Tensor, fpn8: Tensor, fpn16: Tensor, stem4: Tensor) -> tuple[Tensor, Tensor]:
        """The embedding (B, d_model, h, w) and the skip at stride 4 (B, d_model/4, H/4, W/4)."""
        skip4 = self.skip4(fpn4) + stem4
        coarse = functional.interpolate(self.from16(fpn16), scale_factor=2.0, mode="nearest")
        x = self.norm(fpn8 + coarse + self.from4(skip4))
        return x + self.mix(x), skip4


class SliceEncoder(nn.Module):
    """Grey slices to `SliceFeatures`."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.image_encoder = build_backbone(config)
        self.stem = Stem(config.d_model)
        self.fusion = Fusion(config.d_model)
        self.register_buffer("mean", torch.tensor(CHANNEL_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CHANNEL_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, image_B1HW: Tensor) -> SliceFeatures:
        """Encode slices.

        Args:
            image_B1HW: grey values in [0, 1]; H and W multiples of 32.

        Raises:
            ImageShapeError: the image has another rank, or a side is no multiple of 32.
        """
        levels = self.levels(image_B1HW)
        return self.fused(levels, levels.fpn16)

    def levels(self, image_B1HW: Tensor) -> LevelFeatures:
        """Run SAM2's image encoder alone.

        Raises:
            ImageShapeError: the image has another rank, or a side is no multiple of 32.
        """
        require_sides(image_B1HW)
        fpn4, fpn8, fpn16 = self.image_encoder((image_B1HW - self.mean) / self.std)["backbone_fpn"]
        return LevelFeatures(fpn4, fpn8, fpn16, image_B1HW)

    def fused(self, levels: LevelFeatures, fpn16: Tensor) -> SliceFeatures:
        """Fuse the levels with a top level that may have looked at a memory.

        Args:
            levels: of the slices.
            fpn16: what takes the place of their own top level.
        """
        skip2, stem4 = self.stem(levels.image_B1HW - 0.5)
        embedding, skip4 = self.fusion(levels.fpn4, levels.fpn8, fpn16, stem4)
        return SliceFeatures(embedding, skip4, skip2, levels.image_B1HW)


def require_sides(image_B1HW: Tensor) -> None:
    """Refuse what the encoder would compute wrongly.

    Raises:
        ImageShapeError: the image has another rank, or a side is no multiple of 32.
    """
    shape = tuple(image_B1HW.shape)
    if len(shape) != 4 or shape[1] != 1:
        raise ImageShapeError(f"encoding slices: found shape {shape}, expected (slices, 1, height, width)")
    if any(side % SIDE_MULTIPLE or side == 0 for side in shape[2:]):
        raise ImageShapeError(
            f"encoding slices: found {shape[2]} x {shape[3]} pixels; both sides must be multiples of {SIDE_MULTIPLE}"
        )
