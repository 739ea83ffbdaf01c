"""A running mean of the weights: smoother than the last step, and what is validated and shipped."""

from __future__ import annotations

import torch
from torch import nn


class WeightAverage:
    """Exponential mean of the floating tensors that train, with a warm start.

    The decay rises from 0.1 to its full value over the first steps, so that the mean does not carry the
    random start along.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Begin with a copy of the weights.

        Args:
            network: the network that is trained.
            decay: weight of the old mean in each update, in [0, 1).
        """
        self.decay = decay
        self.num_updates = 0
        frozen = {name for name, parameter in network.named_parameters() if not parameter.requires_grad}
        self.mean = {name: value.detach().clone() for name, value in network.state_dict().items() if name not in frozen}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the mean towards the network's present weights."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        values = network.state_dict()
        for name in self.mean:
            value = values[name]
            if value.is_floating_point():
                self.mean[name].lerp_(value.detach(), 1.0 - decay)
            else:
                self.mean[name].copy_(value)

    def copy_to(self, network: nn.Module) -> None:
        """Write the mean into a network of the same layout; what was frozen stays as it is there."""
        network.load_state_dict(self.mean, strict=False)

    def state_dict(self) -> dict[str, object]:
        """Give what a resumed run needs."""
        return {"num_updates": self.num_updates, "mean": self.mean}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Take up a saved state."""
        self.num_updates = int(str(state["num_updates"]))
        mean = state["mean"]
        if not isinstance(mean, dict):
            raise TypeError(f"a saved mean of weights is a dict, not {type(mean).__name__}")
        for name, value in mean.items():
            self.mean[name].copy_(value)
