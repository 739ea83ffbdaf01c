"""The numpy door: a checkpoint on a device, arrays in, arrays out. Nothing behind it knows a store or a scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.errors import CoreConfigError, DeviceLostError, DeviceMemoryError
from sam4em_core.header import CheckpointHeader, sha256_of
from sam4em_core.lattice import LatticeImage
from sam4em_core.propagate import BlockInput, predict_block
from sam4em_core.tiles import Bounds, Vector

# torch before 2.8 has no class of its own for a failed device: there such an error passes unchanged.
_ACCELERATOR_ERROR: type[Exception] = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)


@dataclass(frozen=True)
class ModelIdentity:
    """What a result depends on, besides the image."""

    name: str
    """Name of the model."""
    weights_sha256: str
    """sha256 of the checkpoint file."""
    config_digest: str
    """sha256 of the checkpoint's header."""


class BlockPredictor:
    """One model, loaded once per worker."""

    identity: ModelIdentity
    header: CheckpointHeader

    def __init__(
        self,
        checkpoint_path: str | Path,
        device: str = "cpu",
        threads: int = 1,
        batch: int | None = None,
        *,
        flips: bool = False,
    ) -> None:
        """Load a checkpoint.

        Args:
            checkpoint_path: a safetensors file of ours.
            device: `cpu`, `cuda`, `cuda:N`, or `auto` (a GPU where there is one).
            threads: torch threads of this process; changes rounding.
            batch: tiles per model call; default: the checkpoint's; changes rounding.
            flips: average over mirrored tiles: four times the work.

        Raises:
            CheckpointError: the file is unreadable, or belongs to another network.
            CoreConfigError: the device is not known here, or threads or batch is below one.
            DeviceMemoryError: the weights do not fit on the device.
            DeviceLostError: the device went away.
        """
        if threads < 1 or (batch is not None and batch < 1):
            raise CoreConfigError(f"loading {checkpoint_path}: threads {threads} and batch {batch} must be at least 1")
        torch.set_num_threads(threads)
        self.device = chosen_device(device)
        with device_errors(f"loading {checkpoint_path} on {self.device}"):
            loaded = load_checkpoint(checkpoint_path, self.device)
        self._network = loaded.network
        self.header = loaded.header
        self.batch = batch or loaded.header.batch_tiles
        self._flips = flips
        self.identity = ModelIdentity(loaded.header.name, sha256_of(checkpoint_path), loaded.header.digest())

    def predict(
        self,
        image_zyx: NDArray[np.float32],
        image_start: Vector,
        bounds: Bounds,
        domain_shape: Vector,
        core_start: Vector,
        core_stop: Vector,
        batch: int | None = None,
        unet_image: LatticeImage | None = None,
    ) -> NDArray[np.uint8]:
        """Predict the probabilities of one core; every position in voxels of the working lattice, zyx.

        Args:
            image_zyx: grey values in [0, 1]; covers at least `tiles.context_of` the core.
            image_start: position of the image's first voxel.
            bounds: where image data exists, (start, stop); may be negative with a region of interest.
            domain_shape: the whole region that is segmented; it begins at voxel 0.
            core_start: first voxel wanted.
            core_stop: one past the last voxel wanted.
            batch: tiles per model call where the predictor's own do not fit; changes rounding.
            unet_image: what a U-Net reads, made by `tiles.gatherer_of`; default: made of `image_zyx`, which then covers
                that too.

        Returns:
            uint8 of shape (classes, z, y, x), probability times 255, rounded.

        Raises:
            CoreConfigError: the core is empty or leaves the domain.
            ImageShapeError: the image is no float32 volume, or does not cover the context of the core.
            NonFiniteError: the network gave a NaN or an infinity.
            DeviceMemoryError: the device's memory is full; fewer tiles per call need less.
            DeviceLostError: the device went away.
        """
        block = BlockInput(image_zyx, image_start, bounds, domain_shape, core_start, core_stop, unet_image)
        with device_errors(f"predicting the core {core_start} to {core_stop} on {self.device}"):
            return predict_block(self._network, self.header, block, batch=batch or self.batch, flips=self._flips)


def count_gpus() -> int:
    """Count the CUDA devices that torch sees."""
    return torch.cuda.device_count()


def chosen_device(device: str) -> str:
    """Resolve `auto`, and refuse a device that is not here.

    Raises:
        CoreConfigError: the device is not known here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise CoreConfigError(f"device {device!r} is unknown; use cpu, cuda, cuda:N or auto") from error
    if kind.type == "cuda" and (kind.index or 0) >= torch.cuda.device_count():
        raise CoreConfigError(
            f"device {device!r}: torch sees {torch.cuda.device_count()} CUDA devices; use cpu or auto"
        )
    return device


@contextmanager
def device_errors(doing: str) -> Iterator[None]:
    """Turn torch's out-of-memory and lost-device exceptions into ours.

    Raises:
        DeviceMemoryError: the device's memory is full.
        DeviceLostError: the device went away.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"{doing}: the device's memory is full; use fewer tiles per call") from error
    except _ACCELERATOR_ERROR as error:
        raise DeviceLostError(
            f"{doing}: the device failed ({str(error).splitlines()[0]}); restart the worker"
        ) from error
