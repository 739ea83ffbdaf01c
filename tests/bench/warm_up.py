"""Share of voxels that change sides when the memory's warm-up is longer: what the model card gives.

    python tests/bench/warm_up.py TRAINING.yaml CHECKPOINT [W ...]

Everything that the training config reads of its first volume (train and choose slices, image only) is predicted with
the checkpoint's own warm-up, with each W, and with W = 64 as the reference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from measure import report

from pipeline.config.read import parse_config, read_yaml
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, load_volume
from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.propagate import BlockInput, predict_block
from sam4em_core.training import TrainingConfig
from sam4em_core.training.data import working_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFERENCE = 64
"""Warm-up slices that are compared with."""


def main(config: Path, checkpoint: Path, warm_ups: list[int]) -> None:
    """Predict with every warm-up and count the voxels on another side of the threshold."""
    document = parse_config(read_yaml(config), TrainingFile, str(config))
    training = parse_config(document.training, TrainingConfig, str(config))
    volume = load_volume(document.volumes[0], training.classes, StorageOptions())
    image_zyx = working_image(volume, volume.image_zyx.shape[0], training.voxel_size_zyx_nm)
    loaded = load_checkpoint(checkpoint)
    if len(image_zyx) <= 2 * loaded.header.window_slices:
        raise SystemExit(f"{len(image_zyx)} slices are too few: within one window no warm-up makes a difference")
    shape = (image_zyx.shape[0], image_zyx.shape[1], image_zyx.shape[2])
    block = BlockInput(image_zyx, (0, 0, 0), ((0, 0, 0), shape), shape, (0, 0, 0), shape)
    limit = np.ceil(np.array(loaded.header.thresholds) * 255).reshape(-1, 1, 1, 1)

    def inside(warm_up: int) -> NDArray[np.bool_]:
        header = loaded.header.model_copy(update={"warm_up_slices": warm_up})
        found: NDArray[np.bool_] = predict_block(loaded.network, header, block) >= limit
        return found

    reference = inside(REFERENCE)
    shares: dict[str, Any] = {}
    for warm_up in sorted({loaded.header.warm_up_slices, *warm_ups}):
        flipped = inside(warm_up) != reference
        shares[str(warm_up)] = {
            name: {"flipped": float(flipped[index].mean()), "foreground": float(reference[index].mean())}
            for index, name in enumerate(loaded.header.classes)
        }
    report({"checkpoint": checkpoint.name, "reference": REFERENCE, "voxels": int(np.prod(shape)), "warm_up": shares})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(text) for text in sys.argv[3:]])
