"""Two-stage mask decoding: SAM2's mask decoder, its soft mask as a prompt, SAM2's mask decoder again, a light head.

The decoders are called below SAM2's object-score gate: the gate sets a mask to -1024 and its gradient to exactly zero.
Shape suffixes: B slices, K classes, C channels, H and W the image side, h and w the side at stride 8.
"""

import torch
from sam2.modeling.position_encoding import PositionEmbeddingRandom
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from torch import Tensor, nn
from torch.nn import functional

from sam4em_core.adapter import MaskPrompt
from sam4em_core.config import ModelConfig
from sam4em_core.encoder import SliceFeatures, conv_norm

# A structure covers a tenth of the voxels or less: start from that, not from one half.
START_LOGIT = -2.0


class ClassMaskDecoder(MaskDecoder):
    """SAM2's mask decoder with one mask token per class, no quality heads, and its up-scaled embedding given out."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(
            transformer_dim=config.d_model,
            transformer=TwoWayTransformer(
                depth=config.decoder_depth,
                embedding_dim=config.d_model,
                num_heads=config.decoder_heads,
                mlp_dim=config.decoder_mlp_dim,
            ),
            num_multimask_outputs=config.num_classes - 1,
        )
        del self.iou_token, self.iou_prediction_head
        self.class_bias = nn.Parameter(torch.full((1, config.num_classes, 1, 1), START_LOGIT))

    def forward(
        self, embedding: Tensor, position: Tensor, tokens_BKC: Tensor, skip4: Tensor, skip2: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode one mask per class.

        Args:
            embedding: image embedding plus dense prompt, (B, d_model, h, w).
            position: position encoding, (1, d_model, h, w).
            tokens_BKC: prompt tokens, one per class.
            skip4: (B, d_model/4, H/4, W/4).
            skip2: (B, d_model/8, H/2, W/2).

        Returns:
            Logits (B, K, H/2, W/2) and the up-scaled embedding (B, d_model/8, H/2, W/2).
        """
        streams, channels, side_y, side_x = embedding.shape
        tokens = torch.cat((self.mask_tokens.weight.expand(streams, -1, -1), tokens_BKC), dim=1)
        seen, image = self.transformer(embedding, position.expand(streams, -1, -1, -1), tokens)
        first, norm, act1, second, act2 = self.output_upscaling
        x = image.transpose(1, 2).reshape(streams, channels, side_y, side_x)
        x = act1(norm(first(x) + skip4))
        up = act2(second(x) + skip2)
        weights = torch.stack([mlp(seen[:, k]) for k, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        masks = (weights @ up.flatten(2)).view(streams, -1, *up.shape[2:])
        return masks + self.class_bias, up


class DetailHead(nn.Module):
    """Full-resolution logits: the decoder's mask plus a correction from its embedding, the stem and the image."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        narrow = config.d_model // 8
        self.stride2 = nn.Sequential(conv_norm(2 * narrow + config.num_classes, 2 * narrow), conv_norm(2 * narrow, 32))
        self.image = nn.Conv2d(1, 8, 3, padding=1)
        self.full = nn.Sequential(
            nn.Conv2d(16, 8, 3, padding=1), nn.GELU(), nn.Conv2d(8, config.num_classes, 3, padding=1)
        )

    def forward(self, logits: Tensor, up: Tensor, features: SliceFeatures) -> Tensor:
        """Logits (B, K, H, W) from a decoder's logits and embedding at stride 2."""
        x = self.stride2(torch.cat((up, features.skip2, logits), dim=1))
        x = torch.cat((functional.pixel_shuffle(x, 2), self.image(features.image_B1HW - 0.5)), dim=1)
        detail: Tensor = self.full(functional.gelu(x))
        return enlarged(logits) + detail


class TwoStageDecoder(nn.Module):
    """Coarse decoder, then (two_stage) the refining decoder, then the detail head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.position = PositionEmbeddingRandom(d_model // 2)
        self.coarse = ClassMaskDecoder(config)
        self.refined = ClassMaskDecoder(config) if config.two_stage else None
        if config.two_stage:
            self.mask_prompt = MaskPrompt(config)
            self.up_skip = nn.Conv2d(d_model // 8, d_model // 8, 1)
        self.head = DetailHead(config)

    def forward(
        self, features: SliceFeatures, embedding: Tensor, dense_prompt: Tensor, tokens_BKC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Decode a batch of slices.

        Args:
            features: what the encoder made of the slices.
            embedding: their embedding after the memory, (B, d_model, h, w).
            dense_prompt: (B, d_model, h, w).
            tokens_BKC: one prompt token per class.

        Returns:
            Coarse logits and refined logits, both (B, K, H, W).
        """
        position = self.position(embedding.shape[-2:])[None]
        coarse, up = self.coarse(embedding + dense_prompt, position, tokens_BKC, features.skip4, features.skip2)
        logits, up_last = coarse, up
        if self.refined is not None:
            prompted = embedding + self.mask_prompt(coarse.sigmoid())
            skip2 = features.skip2 + self.up_skip(up)
            logits, up_last = self.refined(prompted, position, tokens_BKC, features.skip4, skip2)
        return enlarged(coarse), self.head(logits, up_last, features)


def enlarged(logits: Tensor) -> Tensor:
    """Logits at twice the side, bilinear."""
    return functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
