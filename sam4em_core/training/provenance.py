"""What a run was made of: digests of code, data and base, and the versions of what computes."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sam4em_core.training.errors import TrainingSetupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sam4em_core.training.data import TrainingVolume

_LIBRARIES = ("torch", "sam2", "peft", "numpy", "safetensors")


def describe_origin(
    volumes: Sequence[TrainingVolume], base_sha256: str, sdf_sha256: str = "", memory_base_sha256: str = ""
) -> dict[str, Any]:
    """Give the digests and versions that stand in a run's `config.json`.

    Args:
        volumes: what is trained on and chosen by.
        base_sha256: digest of the weights that the run starts from; empty: none.
        sdf_sha256: digest of the U-Net that makes the signed distances; empty: none.
        memory_base_sha256: digest of the checkpoint that the memory comes from; empty: none of its own.
    """
    return {
        "code_sha256": code_digest(),
        "data_sha256": {volume.name: volume_digest(volume) for volume in volumes},
        "base_sha256": base_sha256,
        "sdf_sha256": sdf_sha256,
        "memory_base_sha256": memory_base_sha256,
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _LIBRARIES}},
    }


def code_digest() -> str:
    """Digest of every source file of the model core, as 64 hex digits."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0")
        digest.update(path.read_bytes())
    return digest.hexdigest()


def volume_digest(volume: TrainingVolume) -> str:
    """Digest of a volume's voxels, labels, voxel size and splits, as 64 hex digits."""
    digest = hashlib.sha256()
    for array in (volume.image_zyx, volume.labels_czyx, volume.ids_czyx, volume.field_czyx):
        if array is None:
            continue
        digest.update(f"{array.dtype} {array.shape} ".encode())
        for part in array:
            digest.update(np.ascontiguousarray(part).data)
    digest.update(f"{volume.voxel_size_zyx_nm} {volume.train} {volume.choose} {volume.grey_range}".encode())
    if volume.loss_share != 1 or volume.draw_share is not None:
        digest.update(f" {volume.loss_share} {volume.draw_share}".encode())
    return digest.hexdigest()


def check_apart(volumes: Sequence[TrainingVolume]) -> None:
    """Refuse one image given twice, with slices that train in one entry and choose in another.

    Raises:
        TrainingSetupError: names both volumes and the slices they share.
    """
    images = [hashlib.sha256(np.ascontiguousarray(volume.image_zyx).data).digest() for volume in volumes]
    for volume, image in zip(volumes, images, strict=True):
        for other, its_image in zip(volumes, images, strict=True):
            if other is volume or image != its_image or volume.train is None or other.choose is None:
                continue
            start, stop = max(volume.train[0], other.choose[0]), min(volume.train[1], other.choose[1])
            if start < stop:
                raise TrainingSetupError(
                    f"volumes {volume.name} and {other.name} are the same image; train of the one and choose of the "
                    f"other share slices {start}:{stop}; they must not overlap"
                )
