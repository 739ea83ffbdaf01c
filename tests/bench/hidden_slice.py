"""Does a network's memory know what is in a slice that shows nothing?

    python tests/bench/hidden_slice.py TRAINING.yaml CHECKPOINT

Of the first choose volume, six working slices and a square of at most 160 voxels are read; the fifth slice is then
shown black, grey and white. Given is the mean probability of the first class there, inside and outside the mask that
the network itself saw in the slice before. The network has SAM2's own memory (`sdf_memory.source: logits`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from measure import report

from pipeline.config.read import parse_config, read_yaml
from pipeline.storage import StorageOptions
from pipeline.training import TrainingFile, load_volume
from sam4em_core.checkpoint import load_checkpoint
from sam4em_core.neighborhood import forward_fields
from sam4em_core.training import TrainingConfig
from sam4em_core.training.validate import choose_region

SLICES, HIDDEN, SIDE = 6, 4, 160
GREYS = {"as it is": None, "black": 0.0, "grey": 0.5, "white": 1.0}


def main() -> None:
    """Show the slice in every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    document = parse_config(read_yaml(arguments.config), TrainingFile, str(arguments.config))
    config = parse_config(document.training, TrainingConfig, str(arguments.config))
    section = next(volume for volume in document.volumes if volume.choose is not None)
    region = choose_region(load_volume(section, config.classes, StorageOptions()), config)
    image_THW = torch.from_numpy(region.image_zyx[:SLICES, :SIDE, :SIDE])
    network = load_checkpoint(arguments.checkpoint).network.eval()
    found = {}
    for name, grey in GREYS.items():
        shown_THW = image_THW.clone()
        if grey is not None:
            shown_THW[HIDDEN] = grey
        with torch.inference_mode():
            probability_THW = forward_fields(network, shown_THW[None], None).refined_BTKHW[0, :, 0].sigmoid()
        before = probability_THW[HIDDEN - 1] > 0.5
        inside, outside = probability_THW[HIDDEN][before], probability_THW[HIDDEN][~before]
        found[name] = {"inside": round(float(inside.mean()), 4), "outside": round(float(outside.mean()), 4)}
    report({"checkpoint": arguments.checkpoint.name, "slice": found})


if __name__ == "__main__":
    main()
