"""Score a checkpoint on the choose slices at several tile sides and places of the z windows, and set its thresholds.

    python tests/bench/calibrate.py TRAINING.yaml CHECKPOINT [--tiles 256,384] [--offsets 0,3,6,9,12] [--flips]
        [--write OUT SIDE]

The choose slices alone are read. One row per tile side: the best threshold over all offsets together, and the spread
of the offsets at that threshold. `--write` stores a copy with that tile side and its threshold.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import report

from pipeline.config.read import parse_config, read_yaml
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, load_volume
from sam4em_core.checkpoint import load_checkpoint, save_checkpoint
from sam4em_core.training import TrainingConfig
from sam4em_core.training.scores import ClassScore, OverlapCounts, best_threshold, count_overlap
from sam4em_core.training.validate import choose_region, predict_region

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader
    from sam4em_core.model import Sam4emNet
    from sam4em_core.training.validate import ChooseRegion

UNLABELLED = 255
"""Truth that is not known."""
THRESHOLDS = tuple(round(0.1 + 0.05 * step, 2) for step in range(17))


def score(
    network: Sam4emNet, header: CheckpointHeader, regions: list[ChooseRegion], offsets: list[int], *, flips: bool
) -> tuple[dict[str, ClassScore], dict[str, list[float]]]:
    """Give per class the best score over all offsets, and the IoU of each offset at its threshold."""
    best, spread = {}, {}
    for index, name in enumerate(header.classes):
        by_offset = []
        for offset in offsets:
            counts = [OverlapCounts()] * len(THRESHOLDS)
            for region in regions:
                probability = predict_region(network, header, region, window_offset=offset, flips=flips)[index]
                truth = region.truth_czyx[index]
                counts = [
                    total + count_overlap(probability, truth, threshold, UNLABELLED)
                    for total, threshold in zip(counts, THRESHOLDS, strict=True)
                ]
            by_offset.append(counts)
        together = [sum(column[1:], start=column[0]) for column in zip(*by_offset, strict=True)]
        best[name] = best_threshold(THRESHOLDS, together)
        place = THRESHOLDS.index(best[name].threshold)
        spread[name] = [round(best_threshold((THRESHOLDS[place],), [counts[place]]).iou, 4) for counts in by_offset]
    return best, spread


def main() -> None:
    """Score every tile side, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--tiles", default="256,384")
    parser.add_argument("--offsets", default="0,3,6,9,12")
    parser.add_argument("--flips", action="store_true", help="average over mirrored tiles")
    parser.add_argument("--write", nargs=2, metavar=("OUT", "SIDE"))
    arguments = parser.parse_args()
    offsets = [int(text) for text in arguments.offsets.split(",")]
    document = parse_config(read_yaml(arguments.config), TrainingFile, str(arguments.config))
    config = parse_config(document.training, TrainingConfig, str(arguments.config))
    validation = config.validation.model_copy(
        update={"window_offsets": tuple(offsets), "context_slices": max(16, *offsets)}
    )
    config = config.model_copy(update={"validation": validation})
    volumes = [load_volume(section, config.classes, StorageOptions()) for section in document.volumes]
    regions = [choose_region(volume, config) for volume in volumes if volume.choose is not None]
    loaded = load_checkpoint(arguments.checkpoint)
    results: dict[str, Any] = {}
    for side in (int(text) for text in arguments.tiles.split(",")):
        header = loaded.header.model_copy(update={"tile_side": side})
        best, spread = score(loaded.network, header, regions, offsets, flips=arguments.flips)
        results[str(side)] = {
            name: {"threshold": value.threshold, "iou": value.iou, "dice": value.dice, "iou_by_offset": spread[name]}
            for name, value in best.items()
        }
        if arguments.write and int(arguments.write[1]) == side:
            thresholds = tuple(best[name].threshold for name in header.classes)
            save_checkpoint(
                Path(arguments.write[0]), loaded.network, header.model_copy(update={"thresholds": thresholds})
            )
    report(
        {"checkpoint": str(arguments.checkpoint.name), "offsets": offsets, "flips": arguments.flips, "tiles": results}
    )


if __name__ == "__main__":
    main()
