"""daisy schedules two passes on two processes; labelling, stitching and relabelling are written as its users do.

daisy brings blocks, processes and retries: the rest is cc3d, a union-find and fastremap here.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

# The folder of this file comes first on the path, and this file has the package's name.
sys.path.pop(0)

import cc3d
import daisy
import fastremap
import numpy as np
import zarr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

BLOCK = (64, 256, 512)
CHUNK = (64, 128, 128)


def main(path: Path, folder: Path) -> None:
    """Label the volume and write the ids."""
    # It writes logs into the folder it is called in.
    os.chdir(folder)
    image = zarr.open_array(str(path), mode="r")
    for name in ("parts", "labels"):
        zarr.create_array(store=str(folder / name), shape=image.shape, chunks=CHUNK, dtype=np.uint64)
    (folder / "faces").mkdir()

    def label(block: daisy.Block) -> None:
        """Label a block; its labels begin behind those that the blocks before it can have."""
        place = slices_of(block)
        found = cc3d.connected_components(zarr.open_array(str(path), mode="r")[place] > 127, connectivity=6)
        start = np.uint64(index_of(place, image.shape) * BLOCK[0] * BLOCK[1] * BLOCK[2])
        ids = np.where(found > 0, found.astype(np.uint64) + start, np.uint64(0))
        zarr.open_array(str(folder / "parts"))[place] = ids
        faces = {f"{axis}{side}": np.take(ids, side, axis) for axis in range(3) for side in (0, -1)}
        np.savez(folder / "faces" / name_of(place), labels=fastremap.unique(ids[ids > 0]), **faces)

    def relabel(block: daisy.Block) -> None:
        """Give the parts of an object its id."""
        place = slices_of(block)
        with np.load(folder / "map.npz") as saved:
            table = dict(zip(saved["parts"].tolist(), saved["ids"].tolist(), strict=True))
        ids = fastremap.remap(zarr.open_array(str(folder / "parts"), mode="r")[place], {0: 0, **table})
        zarr.open_array(str(folder / "labels"))[place] = ids

    run("label", image.shape, label)
    parts, ids = resolve(folder / "faces", image.shape)
    np.savez(folder / "map.npz", parts=parts, ids=ids)
    run("relabel", image.shape, relabel)
    packages = ("daisy", "connected-components-3d", "fastremap", "zarr")
    found = {"objects": int(ids.max(initial=0)), "versions": {name: version(name) for name in packages}}
    sys.stdout.write(json.dumps(found) + "\n")


def run(name: str, shape: tuple[int, ...], function: object) -> None:
    """Let daisy call a function for every block, on two processes."""
    roi, block = daisy.Roi((0, 0, 0), shape), daisy.Roi((0, 0, 0), BLOCK)
    task = daisy.Task(name, roi, block, block, function, num_workers=2, read_write_conflict=False, fit="shrink")
    if not daisy.run_blockwise([task]):
        raise RuntimeError(f"daisy: {name} failed")


def slices_of(block: daisy.Block) -> tuple[slice, ...]:
    """Give the voxels of a block."""
    roi = block.write_roi
    return tuple(slice(int(first), int(last)) for first, last in zip(roi.begin, roi.end, strict=True))


def index_of(place: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """Number a block."""
    counts = [-(-length // size) for length, size in zip(shape, BLOCK, strict=True)]
    z, y, x = (part.start // size for part, size in zip(place, BLOCK, strict=True))
    return int((z * counts[1] + y) * counts[2] + x)


def name_of(place: tuple[slice, ...]) -> str:
    """Name the file with the faces of a block."""
    return "-".join(str(part.start) for part in place) + ".npz"


def resolve(faces: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Join the labels that touch at a face; gives all labels, sorted, and the id of each."""
    labels, pairs = [], [np.empty((0, 2), np.uint64)]
    for file in sorted(faces.iterdir()):
        start = [int(text) for text in file.stem.split("-")]
        with np.load(file) as block:
            labels.append(block["labels"])
            for axis in range(3):
                after = [at + BLOCK[axis] * (axis == number) for number, at in enumerate(start)]
                if after[axis] >= shape[axis]:
                    continue
                with np.load(faces / ("-".join(map(str, after)) + ".npz")) as neighbor:
                    touching = np.stack([block[f"{axis}-1"].ravel(), neighbor[f"{axis}0"].ravel()], axis=1)
                pairs.append(np.unique(touching[(touching > 0).all(axis=1)], axis=0))
    parts = np.sort(np.concatenate(labels))
    rows, columns = np.searchsorted(parts, np.concatenate(pairs)).T
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(parts), len(parts)))
    return parts, connected_components(graph, directed=False)[1].astype(np.uint64) + np.uint64(1)


if __name__ == "__main__" and sys.argv[1] == "run":
    main(Path(sys.argv[2]), Path(sys.argv[3]))
