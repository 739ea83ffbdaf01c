"""SAM4EM's 3D memory: attention from one slice to the last M slices, over a small spatial window.

The memory is a ring of M distinct entries. It lives in a `MemoryState` that goes in and comes out of every step: the
module itself holds no state, so two volumes can never see each other, and a checkpoint has no image size.

    queries: blocks of 4 x 4 pixels at stride 8          keys: the same 6 x 6 pixels of every filled slot
                 ....                                          ......
                 .qq.   x M slots (age 1 .. M)                 .kkkk.   + one learnt "nothing remembered" key
                 ....                                          ......

Shape suffixes: B streams, M slots, C channels, h and w the side at stride 8.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam4em_core.config import ModelConfig

BLOCK = 4
HALO = 1
REACH = BLOCK + 2 * HALO


@dataclass(frozen=True)
class MemoryState:
    """What a stream remembers between two slices."""

    entries_BMChw: Tensor
    """Memory entries, the newest first."""
    num_filled_B: Tensor
    """Number of valid entries per stream, int64, 0..M."""
    prompt_BChw: Tensor
    """Dense prompt made from the previous refined mask; meaningless where no entry is filled."""

    def detached(self) -> "MemoryState":
        """The same values, cut from the graph."""
        return MemoryState(self.entries_BMChw.detach(), self.num_filled_B, self.prompt_BChw.detach())

    def reset(self, streams_B: Tensor) -> "MemoryState":
        """A copy that has forgotten the flagged streams (bool, one per stream)."""
        return replace(self, num_filled_B=self.num_filled_B.masked_fill(streams_B, 0))


def empty_state(config: ModelConfig, streams: int, side_yx: tuple[int, int], device: torch.device | str) -> MemoryState:
    """A state that remembers nothing; `side_yx` in pixels at stride 8."""
    slots = config.memory_slots if config.memory == "volume" else 0
    return MemoryState(
        torch.zeros(streams, slots, config.memory_dim, *side_yx, device=device),
        torch.zeros(streams, dtype=torch.int64, device=device),
        torch.zeros(streams, config.d_model, *side_yx, device=device),
    )


class MemoryLayer(nn.Module):
    """One round of attention to the ring, then an MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.dim = config.memory_heads, config.memory_dim
        self.norm = nn.GroupNorm(8, config.d_model)
        self.query = nn.Conv2d(config.d_model, self.dim, 1)
        self.key_value = nn.Conv2d(self.dim, 2 * self.dim, 1)
        self.query_place = nn.Parameter(torch.randn(BLOCK * BLOCK, self.dim) * 0.02)
        self.key_place = nn.Parameter(torch.randn(REACH * REACH, self.dim) * 0.02)
        self.key_age = nn.Parameter(torch.randn(config.memory_slots, self.dim) * 0.02)
        self.nothing = nn.Parameter(torch.randn(2, self.dim) * 0.02)
        self.out = nn.Conv2d(self.dim, config.d_model, 1)
        self.mlp = nn.Sequential(
            nn.GroupNorm(8, config.d_model),
            nn.Conv2d(config.d_model, config.d_model, 1),
            nn.GELU(),
            nn.Conv2d(config.d_model, config.d_model, 1),
        )

    def forward(self, embedding_BChw: Tensor, entries_BMChw: Tensor, allowed_BM: Tensor) -> Tensor:
        """The embedding after looking at the allowed slots, (B, d_model, h, w)."""
        query = blocks_of(self.query(self.norm(embedding_BChw))) + self.query_place
        key, value = self._keys(entries_BMChw)
        mask = self._mask(allowed_BM, embedding_BChw.shape[-2:])
        seen = functional.scaled_dot_product_attention(
            self._heads(query), self._heads(key), self._heads(value), attn_mask=mask
        )
        seen = unblocked(seen.transpose(2, 3).flatten(1, 2), embedding_BChw.shape)
        x = embedding_BChw + self.out(seen)
        after: Tensor = x + self.mlp(x)
        return after

    def _heads(self, tokens: Tensor) -> Tensor:
        batch, length, dim = tokens.shape
        return tokens.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)

    def _keys(self, entries_BMChw: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values per block: (B * blocks, 1 + M * 36, dim) each; the first one is "nothing remembered"."""
        streams, slots = entries_BMChw.shape[:2]
        places = neighbourhoods_of(self.key_value(entries_BMChw.flatten(0, 1)))
        places = places.unflatten(0, (streams, slots)).movedim(1, 2)
        key = places[..., : self.dim] + self.key_age[:slots, None] + self.key_place
        nothing = self.nothing[:, None, None].expand(2, streams * key.shape[1], 1, self.dim)
        key = torch.cat((nothing[0], key.flatten(2, 3).flatten(0, 1)), dim=1)
        value = torch.cat((nothing[1], places[..., self.dim :].flatten(2, 3).flatten(0, 1)), dim=1)
        return key, value

    def _mask(self, allowed_BM: Tensor, side_yx: torch.Size) -> Tensor:
        """True where a query may look: filled slots, inside the image. (B * blocks, 1, 1, 1 + M * 36)."""
        inside = allowed_BM.new_ones(1, 1, *side_yx, dtype=torch.float32)
        inside_LP = neighbourhoods_of(inside)[0, ..., 0] > 0
        mask = allowed_BM[:, None, :, None] & inside_LP[None, :, None, :]
        mask = mask.flatten(2).flatten(0, 1)
        return functional.pad(mask, (1, 0), value=True)[:, None, None]


def blocks_of(x_BChw: Tensor) -> Tensor:
    """Non-overlapping blocks of 4 x 4 pixels as tokens: (B * blocks, 16, C)."""
    streams, channels, side_y, side_x = x_BChw.shape
    x = x_BChw.view(streams, channels, side_y // BLOCK, BLOCK, side_x // BLOCK, BLOCK)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(-1, BLOCK * BLOCK, channels)


def neighbourhoods_of(x_NChw: Tensor) -> Tensor:
    """The 6 x 6 pixels around every block of 4 x 4, zero outside the image: (N, blocks, 36, C)."""
    x = functional.pad(x_NChw.permute(0, 2, 3, 1), (0, 0, HALO, HALO, HALO, HALO))
    x = x.unfold(1, REACH, BLOCK).unfold(2, REACH, BLOCK)
    return x.permute(0, 1, 2, 4, 5, 3).reshape(x.shape[0], -1, REACH * REACH, x.shape[3])


def unblocked(x_TCP: Tensor, shape_BChw: torch.Size) -> Tensor:
    """Undo `blocks_of` for tokens given as (B * blocks, C, 16)."""
    streams, _, side_y, side_x = shape_BChw
    x = x_TCP.view(streams, side_y // BLOCK, side_x // BLOCK, -1, BLOCK, BLOCK)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(streams, -1, side_y, side_x)


class VolumeMemory(nn.Module):
    """Reads the ring into an embedding, and writes a slice into the ring."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(MemoryLayer(config) for _ in range(config.memory_layers))
        self.from_features = nn.Conv2d(config.d_model, config.memory_dim, 1)
        self.from_mask = nn.Conv2d(config.d_model, config.memory_dim, 1)
        self.entry_norm = nn.GroupNorm(8, config.memory_dim)

    def read(self, embedding_BChw: Tensor, state: MemoryState, drop_B: Tensor | None) -> Tensor:
        """The embedding after looking at the filled slots; a dropped stream looks at none."""
        slots = torch.arange(state.entries_BMChw.shape[1], device=embedding_BChw.device)
        allowed_BM = slots[None] < state.num_filled_B[:, None]
        if drop_B is not None:
            allowed_BM = allowed_BM & ~drop_B[:, None]
        x = embedding_BChw
        for layer in self.layers:
            x = layer(x, state.entries_BMChw, allowed_BM)
        return x

    def write(self, embedding_BChw: Tensor, prompt_BChw: Tensor, state: MemoryState) -> MemoryState:
        """The state with one more slice: its own features (before the memory) and the prompt of its refined mask."""
        entry = self.entry_norm(self.from_features(embedding_BChw) + self.from_mask(prompt_BChw))
        entries = torch.cat((entry[:, None], state.entries_BMChw[:, :-1]), dim=1)
        filled = (state.num_filled_B + 1).clamp(max=entries.shape[1])
        return MemoryState(entries, filled, prompt_BChw)
