"""How many voxels per CPU second the mesh stage takes: python tests/bench/mesh_rate.py [LABELS] [--block 256]

LABELS is any label volume; without it, ellipsoids fill about a sixteenth of a block, as mitochondria do. Prints JSON:
CPU seconds of cutting and simplifying, of joining and of encoding, and voxels per CPU second. One process, one thread.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

from pipeline.geometry import Box
from pipeline.labels.surfaces import coarser, cut_fragments, join_fragments
from pipeline.storage import open_volume
from pipeline.storage.meshes import encode_levels, mesh_of

SIZE_NM = (8.0, 8.0, 8.0)


def draw_ellipsoids(extent: int) -> np.ndarray:
    """Draw 60 ellipsoids with radii from a 32nd to a 10th of the block."""
    random = np.random.default_rng(1)
    axes = np.indices((extent,) * 3, np.float32)
    ids = np.zeros((extent,) * 3, np.uint64)
    for number in range(1, 61):
        center, radius = random.uniform(0, extent, 3), random.uniform(extent / 32, extent / 10, 3)
        ids[sum(((axes[axis] - center[axis]) / radius[axis]) ** 2 for axis in range(3)) < 1] = number
    return ids


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", nargs="?")
    parser.add_argument("--block", type=int, default=256)
    arguments = parser.parse_args()
    if arguments.labels is None:
        ids = draw_ellipsoids(arguments.block)
    else:
        volume = open_volume(arguments.labels, kind="labels")
        box = Box.of_shape((arguments.block,) * 3).intersection(Box.of_shape(volume.info.shape_zyx))
        ids = volume.read(box).astype(np.uint64)
    start = time.process_time()
    fragments = cut_fragments(ids, (0, 0, 0), SIZE_NM, max(SIZE_NM))
    cut = time.process_time()
    surfaces = [join_fragments([fragments.of(row)]) for row in range(len(fragments.ids))]
    joined = time.process_time()
    num_bytes = 0
    for segment, surface in zip(fragments.ids, surfaces, strict=True):
        levels = [surface]
        while len(levels[-1].triangles) > 1200 and len(levels) < 4:
            levels.append(coarser(levels[-1], SIZE_NM, len(levels[-1].triangles) // 4))
        meshes = [mesh_of(level.vertices_zyx * SIZE_NM, level.triangles) for level in levels]
        num_bytes += len(encode_levels(int(segment), meshes, SIZE_NM[0])[0])
    encoded = time.process_time()
    figures = {
        "voxels": ids.size,
        "foreground_fraction": round(float((ids > 0).mean()), 4),
        "objects": len(surfaces),
        "triangles": len(fragments.triangles),
        "mesh_bytes": num_bytes,
        "cut_cpu_s": round(cut - start, 3),
        "join_cpu_s": round(joined - cut, 3),
        "levels_and_encoding_cpu_s": round(encoded - joined, 3),
        "mesh_stage_mvoxel_per_cpu_s": round(ids.size / 1e6 / (cut - start), 2),
        "whole_mvoxel_per_cpu_s": round(ids.size / 1e6 / (encoded - start), 2),
    }
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
