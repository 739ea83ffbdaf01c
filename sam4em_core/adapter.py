"""The prompt-free adapter: prompts made from the image and from the previous mask, never from a user.

Shape suffixes: B slices, K classes, C channels, h and w the side at stride 8.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from sam4em_core.config import ModelConfig

# Side of the grid over which class prompts look at the image.
PROMPT_GRID = 8


class MaskPrompt(nn.Module):
    """Soft masks at stride 2 to a dense prompt at stride 8; differentiable, so that both decoders learn from it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        wide = config.d_model // 2
        self.net = nn.Sequential(
            nn.Conv2d(config.num_classes, 16, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(16, wide, 3, stride=2, padding=1),
            nn.GroupNorm(8, wide),
            nn.GELU(),
            nn.Conv2d(wide, config.d_model, 1),
        )

    def forward(self, probability_BKHW: Tensor) -> Tensor:
        """Dense prompt (B, d_model, h, w) of probabilities (B, K, H/2, W/2)."""
        prompt: Tensor = self.net(probability_BKHW - 0.5)
        return prompt


class PromptAdapter(nn.Module):
    """Makes the sparse prompts (one token per class) and the dense prompt of a slice."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d_model = config.d_model
        self.class_query = nn.Parameter(torch.randn(config.num_classes, d_model) * d_model**-0.5)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Sequential(nn.Linear(d_model, d_model), nn.GELU(), nn.Linear(d_model, d_model))
        self.norm = nn.LayerNorm(d_model)
        self.no_mask_yet = nn.Parameter(torch.zeros(1, d_model, 1, 1))

    def class_tokens(self, embedding_BChw: Tensor) -> Tensor:
        """One prompt token per class, (B, K, d_model): a class query looks over the pooled image."""
        pooled_BNC = functional.adaptive_avg_pool2d(embedding_BChw, PROMPT_GRID).flatten(2).transpose(1, 2)
        query_BKC = self.class_query.expand(len(embedding_BChw), -1, -1)
        scores = query_BKC @ self.key(pooled_BNC).transpose(1, 2)
        seen = self.value(scores.softmax(dim=-1) @ pooled_BNC)
        tokens: Tensor = self.norm(query_BKC + seen)
        return tokens

    def dense_prompt(self, previous_BChw: Tensor, known_B: Tensor) -> Tensor:
        """The previous mask's prompt where it is known, the learnt "no mask yet" embedding elsewhere."""
        return torch.where(known_B.view(-1, 1, 1, 1), previous_BChw, self.no_mask_yet)

    def no_prompt(self, embedding_BChw: Tensor) -> Tensor:
        """The "no mask yet" embedding for every slice of the batch, (B, d_model, h, w)."""
        return self.no_mask_yet.expand_as(embedding_BChw)
