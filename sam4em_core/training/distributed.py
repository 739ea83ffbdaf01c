"""Several processes that train one network, started by torchrun.

    every process   draws its share of the step's windows, and adds the loss's sums of the others to its own
    together        add up their gradients: exactly the gradient of one process with all the windows
    the first       writes, logs and validates; the others wait for it at the next sum

Gradients travel as one flat tensor after the backward pass. Fine-tuning trains some megabytes: there is nothing worth
hiding behind the backward pass, and the loss (Dice over the whole batch) is no mean over processes, which
torch's DistributedDataParallel takes for granted.
"""

from __future__ import annotations

import importlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import distributed

from sam4em_core.errors import CoreConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A validation by the first process is what the others wait for longest.
_PATIENCE = timedelta(hours=4)


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many."""

    rank: int = 0
    """Index of this process."""
    size: int = 1
    """Number of processes."""
    device: str = "cpu"
    """Device of this process."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes and validates."""
        return self.rank == 0

    def pooled(self, sums: torch.Tensor) -> torch.Tensor:
        """Add the sums of all other processes, as constants: only this process's part has a gradient."""
        if self.size == 1:
            return sums
        total = sums.detach().clone()
        distributed.all_reduce(total)
        return sums + (total - sums.detach())

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over processes."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))

    def first_says(self, value: float) -> float:
        """Give the first process's value to all."""
        if self.size == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64, device=self.device)
        distributed.broadcast(said, src=0)
        return float(said)

    def wait(self) -> None:
        """Wait until every process is here."""
        self.first_says(0.0)


ALONE = Ranks()
"""One process."""


def _import_before_the_group() -> None:
    """Import what would otherwise keep the group alive beyond its end.

    The functions of `torch.distributed.nn` hold the group that is there when they are imported as a default argument,
    and the first optimizer imports them. A gloo group that is still held at the interpreter's end has threads at
    work, and one that lets go of a tensor by then ends the process with SIGABRT.
    """
    importlib.import_module("torch.distributed.nn")


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone where there are none.

    Args:
        device: `cpu` (gloo) or `cuda` (NCCL, one GPU per process).

    Raises:
        CoreConfigError: a machine has fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield Ranks(device=device)
        return
    is_cuda = device.startswith("cuda")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if is_cuda:
        if local >= torch.cuda.device_count():
            raise CoreConfigError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; start "
                "fewer processes (--nproc-per-node) or set device to cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    _import_before_the_group()
    distributed.init_process_group("nccl" if is_cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), size, device)
    finally:
        distributed.destroy_process_group()
