"""Spatial-SAM's memory: slices look at what SAM2's memory encoder made of their neighbors' signed distances.

    slice z:   image embedding (top level, stride 16) ─┐
               signed distance, g * clip(s / tau)     ─┴─> SAM2's memory encoder ──> entry of z (once per slice)

    slice t:   queries ──> SAM2's memory attention <── entries of t-K .. t-1, t+1 .. t+K, never of t itself

No state goes from slice to slice: an entry depends on its own slice alone, so a wrong mask is never written back, and
the result does not depend on where a chain began. No object pointers: there is nothing to track.
SAM2's attention takes the square root of the token count as the side of the image: anything but a square is refused.

Suffixes: B streams (tiles), K classes, C channels, H and W the image side, h and w the side at stride 16.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine, compute_axial_cis
from sam2.modeling.sam.transformer import RoPEAttention
from torch import Tensor, nn

from sam4em_core.config import ModelConfig
from sam4em_core.errors import ImageShapeError

# Source: sam2 1.1.0, configs/sam2.1: sigmoid_scale_for_mem_enc, sigmoid_bias_for_mem_enc. The memory encoder was
# trained on masks in [-10, 10].
SIGMOID_SCALE = 20.0
SIGMOID_BIAS = -10.0
START_GAIN = 10.0

# Source: sam2 1.1.0, configs/sam2.1: dropout of the memory attention, layers of the fuser.
_DROPOUT = 0.1
_FUSER_LAYERS = 2

# Ours: added to a deviation that is divided by.
_LEAST_DEVIATION = 1e-5
# Ours: how an untrained attention looks straight across (`_look_straight_across`).
_STRAIGHT_PAIRS = 8
_STRAIGHT_DROP = 3.0


@dataclass(frozen=True)
class Neighbor:
    """One entry that a slice looks at."""

    offset: int
    """Where it lies, in steps of the memory's stride; 0 is the slice itself, negative is smaller z."""
    entry_BChw: Tensor
    """What `SdfMemory.entry` gave for it."""


class TokenScale:
    """Takes mean and standard deviation over channels out of every token, and puts them back.

    SAM2's memory adds masks that have passed a norm to image features, and compares both by their product. The top
    level of a small backbone lies far above one, so that masks would vanish beside it (`DECISIONS.md`). Official
    backbones come with the scale that their memory was trained for: they are left alone.
    """

    def __init__(self, *, active: bool) -> None:
        self._active = active

    def taken_out(self, level_BChw: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Give the level with mean 0 and deviation 1 per token, and what was taken."""
        if not self._active:
            return level_BChw, (level_BChw.new_zeros(()), level_BChw.new_ones(()))
        deviation, mean = torch.std_mean(level_BChw, dim=1, keepdim=True, correction=0)
        deviation = deviation + _LEAST_DEVIATION
        return (level_BChw - mean) / deviation, (mean, deviation)

    def put_back(self, level_BChw: Tensor, scale: tuple[Tensor, Tensor]) -> Tensor:
        """Undo `taken_out`."""
        mean, deviation = scale
        return level_BChw * deviation + mean if self._active else level_BChw


class SdfMemory(nn.Module):
    """SAM2's memory encoder and memory attention, around signed distances."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config.sdf_memory
        width, dim = config.d_model, config.memory_dim
        self.encoder = MemoryEncoder(
            out_dim=dim,
            mask_downsampler=MaskDownSampler(embed_dim=width, kernel_size=3, stride=2, padding=1),
            fuser=Fuser(CXBlock(width), num_layers=_FUSER_LAYERS),
            position_encoding=PositionEmbeddingSine(dim),
            in_dim=width,
        )
        self.attention = MemoryAttention(width, True, _layer(width, dim, self.config.mlp_dim), self.config.layers)
        for layer in self.attention.layers:
            _look_straight_across(layer.cross_attn_image)
        self.position = PositionEmbeddingSine(width)
        # The last row is that of a slice's own entry: SAM2's row of conditioning frames.
        self.time_rows = nn.Parameter(torch.zeros(self.config.reach + 1, 1, 1, dim))
        self.nothing_here = nn.Parameter(torch.zeros(1, dim))
        self.no_memory = nn.Parameter(torch.zeros(1, 1, width))
        for rows in (self.time_rows, self.nothing_here, self.no_memory):
            nn.init.trunc_normal_(rows, std=0.02)
        self._scale = TokenScale(active=config.backbone == "small")
        self.gain = nn.Parameter(torch.tensor([START_GAIN]))
        if self.config.side_vector:
            self.side = nn.Parameter(torch.zeros(dim))
        if config.num_classes > 1:
            self.class_gain = nn.Parameter(torch.randn(config.num_classes, dim))

    def entry(self, fpn16_BChw: Tensor, field_BKHW: Tensor) -> Tensor:
        """Make the memory entry of slices, (B, memory_dim, h, w).

        Args:
            fpn16_BChw: their top level, before any memory.
            field_BKHW: signed distance / tau per class, positive inside (with `source: logits`, mask logits).

        Raises:
            ImageShapeError: height and width differ.
        """
        require_square(fpn16_BChw)
        level_BChw = self._scale.taken_out(fpn16_BChw)[0]
        seen_K = [self._encoded(level_BChw, field[:, None]) for field in field_BKHW.unbind(1)]
        if len(seen_K) == 1:
            return seen_K[0]
        # One gain per class and channel: the mean still tells which class lies where.
        gains_K = self.class_gain.view(len(seen_K), 1, -1, 1, 1).unbind(0)
        return torch.stack([seen * gain for seen, gain in zip(seen_K, gains_K, strict=True)]).mean(0)

    def _encoded(self, fpn16_BChw: Tensor, field_B1HW: Tensor) -> Tensor:
        mask = self._injected(field_B1HW)
        seen: Tensor = self.encoder(fpn16_BChw, mask, skip_mask_sigmoid=True)["vision_features"]
        is_empty_B = (field_B1HW <= 0).flatten(1).all(dim=1)
        return seen + is_empty_B.view(-1, 1, 1, 1) * self.nothing_here[..., None, None]

    def _injected(self, field: Tensor) -> Tensor:
        """Bring a field into the range that the memory encoder was trained on."""
        if self.config.source == "logits":
            return field.sigmoid() * SIGMOID_SCALE + SIGMOID_BIAS
        clipped = field.clamp(-1.0, 1.0)
        if self.config.injection == "sigmoid":
            return (self.gain * clipped).sigmoid() * SIGMOID_SCALE + SIGMOID_BIAS
        return self.gain * clipped

    def read(self, fpn16_BChw: Tensor, neighbors: Sequence[Neighbor]) -> Tensor:
        """Let slices look at their neighbors; gives the top level afterwards, (B, d_model, h, w).

        Args:
            fpn16_BChw: their own top level.
            neighbors: the same offsets for every stream; none at all is allowed.

        Raises:
            ImageShapeError: height and width differ.
        """
        require_square(fpn16_BChw)
        level_BChw, scale = self._scale.taken_out(fpn16_BChw)
        tokens = _tokens(level_BChw)
        if not neighbors:
            return self._scale.put_back(_image(tokens + self.no_memory, fpn16_BChw.shape), scale)
        place = _tokens(self.encoder.position_encoding(neighbors[0].entry_BChw))
        seen: Tensor = self.attention(
            curr=tokens,
            curr_pos=_tokens(self.position(fpn16_BChw)),
            memory=torch.cat([_tokens(neighbor.entry_BChw) for neighbor in neighbors]),
            memory_pos=torch.cat([place + self._time(neighbor.offset) for neighbor in neighbors]),
        )
        return self._scale.put_back(_image(seen, fpn16_BChw.shape), scale)

    def _time(self, offset: int) -> Tensor:
        """Give the vector of a distance in z: SAM2's row of |offset|, plus or minus the side vector."""
        row = self.time_rows[abs(offset) - 1]
        if offset == 0 or not self.config.side_vector:
            return row
        return row + self.side if offset > 0 else row - self.side


def _layer(width: int, dim: int, mlp_dim: int) -> MemoryAttentionLayer:
    """One layer of SAM2's memory attention. Source: sam2 1.1.0, configs/sam2.1."""
    own = {"embedding_dim": width, "num_heads": 1, "downsample_rate": 1, "dropout": _DROPOUT}
    return MemoryAttentionLayer(
        activation="relu",
        cross_attention=RoPEAttention(rope_k_repeat=True, kv_in_dim=dim, **own),
        d_model=width,
        dim_feedforward=mlp_dim,
        dropout=_DROPOUT,
        pos_enc_at_attn=False,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        self_attention=RoPEAttention(**own),
    )


def _look_straight_across(attention: RoPEAttention) -> None:
    """Let an untrained cross-attention read a neighbor where the slice itself is.

    Queries and keys get one and the same constant in the fastest turning pairs of either axis. The rotation of place
    then makes their product largest at equal places, and `_STRAIGHT_DROP` smaller one token away: a kernel in the
    softmax that training may widen or shift. Weights that are loaded replace it. Why: `DECISIONS.md`.
    """
    width = attention.internal_dim
    turns = compute_axial_cis(dim=width, end_x=2, end_y=1)[1, : width // 4].angle()[:_STRAIGHT_PAIRS]
    drop_of_ones = (1.0 - turns.cos()).sum() / math.sqrt(width)
    constant = (_STRAIGHT_DROP / drop_of_ones).sqrt()
    with torch.no_grad():
        for projection in (attention.q_proj, attention.k_proj):
            # Pairs lie side by side: first those of x, then those of y.
            pairs = projection.bias.view(2, -1, 2)
            pairs[:, :_STRAIGHT_PAIRS, 0] = constant


def _tokens(x_BChw: Tensor) -> Tensor:
    """(h * w, B, C), as SAM2's attention takes them."""
    return x_BChw.flatten(2).permute(2, 0, 1)


def _image(tokens: Tensor, shape: torch.Size) -> Tensor:
    return tokens.permute(1, 2, 0).reshape(shape)


def require_square(fpn16_BChw: Tensor) -> None:
    """Refuse what SAM2's memory attention would compute wrongly without an error.

    Raises:
        ImageShapeError: height and width differ.
    """
    height, width = fpn16_BChw.shape[-2:]
    if height != width:
        raise ImageShapeError(
            f"looking at the memory: the top level has {height} x {width} tokens; SAM2's memory attention takes "
            "squares only (it computes wrong positions for anything else): give square tiles"
        )
