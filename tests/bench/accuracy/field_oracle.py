"""What is a row's memory of signed distances worth, and what would it be worth if they were right?

    python tests/bench/accuracy/field_oracle.py ROW --work FOLDER [--context SLICES] [--unet CHECKPOINT]

The trained network of a row segments the choose slices again and again: with the distances of its own U-Net, with those
of the truth, with distances that say that nothing is there, and with no neighbor at all; then with those of another
network's U-Net. Given is the IoU of every class at its best threshold.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
from rows import Row, row_named
from sets import SETS, UNET_CONTEXT_SLICES, BenchSet, load_set, region_of

from sam4em_core import propagate, rings, tiles
from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.rings import field_of_block
from sam4em_core.sdf import signed_distance
from sam4em_core.training.resample import resample_float
from sam4em_core.training.sections import ValidationConfig
from sam4em_core.training.validate import score_regions

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import Any

    import numpy.typing as npt

    from sam4em_core.axis import Vector
    from sam4em_core.blocks import BlockInput
    from sam4em_core.field import LatticeField
    from sam4em_core.header import CheckpointHeader
    from sam4em_core.model import Sam4emNet
    from sam4em_core.unet3d import UNet3d

_HALF = 0.5
_WHOLE = 100


def main() -> None:
    """Score one row in all ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row")
    parser.add_argument("--work", type=Path, required=True, help="folder of the rows' work folders")
    parser.add_argument("--context", type=int, default=UNET_CONTEXT_SLICES, help="working slices of image around")
    parser.add_argument("--unet", type=Path, help="a network whose U-Net gives the distances too")
    arguments = parser.parse_args()
    row = row_named(arguments.row)
    found = {"row": row.name, "choose_iou": scores_of(row, arguments.work, arguments.context, arguments.unet)}
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


def scores_of(row: Row, work: Path, context_slices: int, unet: Path | None = None) -> dict[str, dict[str, float]]:
    """Give the IoU per way and class."""
    spec = SETS[row.set]
    # The truth of all slices, as the neighbors of the choose slices are labelled or not.
    data = load_set(row.set, _WHOLE, work / "sets")
    region = region_of(data.choose, spec.working_zyx_nm, context_slices)
    loaded = load_checkpoint(work / row.name / "best.safetensors")
    if loaded.network.unet is None:
        raise SystemExit(f"{row.name}: its network has no U-Net; give a row whose memory is signed distances")
    truth = true_field(data, loaded.network.unet.config.tau_nm)
    first_z = int(data.choose.span[0] * spec.voxel_size_zyx_nm[0] / spec.working_zyx_nm[0] + 1e-6)
    ways: dict[str, AbstractContextManager[Any]] = {
        "own field": nullcontext(),
        "true field": patch.object(propagate, "field_of_block", given(truth, first_z)),
        "empty field": patch.object(propagate, "field_of_block", given(np.full_like(truth, -1), first_z)),
        "no neighbor": patch.object(rings, "neighbors_of", lambda *_: []),
    }
    if unet is not None:
        ways["given field"] = patch.object(propagate, "field_of_block", by_unet_of(unet, loaded.network.unet))
    found = {}
    for name, way in ways.items():
        with way:
            scored = score_regions(loaded.network, loaded.header, [region], ValidationConfig().thresholds)
        found[name] = {item: round(score.iou, 4) for item, score in scored.items()}
    return found


def by_unet_of(checkpoint: Path, own: UNet3d) -> Any:
    """Make what stands in for `rings.field_of_block`: distances by the U-Net of another network."""
    network = load_checkpoint(checkpoint).network
    if network.unet is None or network.unet.config != own.config:
        raise SystemExit(f"{checkpoint}: its network has no U-Net like the row's; give a Spatial-SAM with {own.config}")

    def stand_in(_: Sam4emNet, header: CheckpointHeader, block: BlockInput) -> LatticeField:
        return field_of_block(network, header, block)

    return stand_in


def true_field(data: BenchSet, tau_nm: float) -> npt.NDArray[np.float32]:
    """Give signed distance / tau of the choose volume on the working lattice, (classes, z, y, x)."""
    volume, working_nm = data.choose.volume, data.spec.working_zyx_nm
    z, y, x = (
        math.ceil(extent * have / want - 1e-6)
        for extent, have, want in zip(volume.image_zyx.shape, volume.voxel_size_zyx_nm, working_nm, strict=True)
    )
    masks = [resample_float(mask, volume.voxel_size_zyx_nm, working_nm, (z, y, x)) for mask in volume.labels_czyx]
    return np.stack([signed_distance(mask >= _HALF, working_nm, tau_nm) for mask in masks])


@dataclass(frozen=True)
class GivenField:
    """Stands in for `field.LatticeField`: distances that are known at every working voxel."""

    values_czyx: npt.NDArray[np.float32]
    start: Vector

    def inside(self, start: Vector, stop: Vector) -> npt.NDArray[np.float32]:
        """Give a part."""
        part = tuple(slice(a - o, b - o) for a, b, o in zip(start, stop, self.start, strict=True))
        return self.values_czyx[(slice(None), *part)]


def given(field_czyx: npt.NDArray[np.float32], first_z: int) -> Any:
    """Make what stands in for `rings.field_of_block`.

    Args:
        field_czyx: of the whole volume.
        first_z: slice of it that is slice 0 of a block.
    """

    def stand_in(network: Sam4emNet, header: CheckpointHeader, block: BlockInput) -> GivenField:
        low, high = tiles.context_of(block.core_start, block.core_stop, block.bounds, block.domain_shape, header)
        cut = field_czyx[:, low[0] + first_z : high[0] + first_z, low[1] : high[1], low[2] : high[2]]
        return GivenField(np.ascontiguousarray(cut), low)

    return stand_in


if __name__ == "__main__":
    main()
