"""cellpose's `distributed_eval` on two processes, with a threshold in place of its network.

What is measured is its blocks, stitching and relabelling. Two things are changed from outside: the network, since there
is no place for another one, and `zarr.open`, which is called with the mode by position, as zarr 3 no longer takes it.
Labels are joined only where their shrunk faces touch, so thin contacts stay apart and there are more objects.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

# The folder of this file comes first on the path, and this file has the package's name.
sys.path.pop(0)

import numpy as np
import zarr
from cellpose.contrib import distributed_segmentation
from numpy.typing import NDArray

BLOCK = (64, 256, 512)


def main(path: Path, folder: Path) -> None:
    """Label the volume and write the ids."""
    # It writes logs and intermediates into the folder it is called in.
    os.chdir(folder)
    opened = zarr.open
    zarr.open = lambda store, mode="a", **options: opened(store, mode=mode, **options)
    cluster = {"n_workers": 2, "ncpus": 1, "threads_per_worker": 1, "memory_limit": "8GB"}
    # Its messages go to stdout, where the result is waited for.
    with contextlib.redirect_stdout(sys.stderr):
        _, boxes = distributed_segmentation.distributed_eval(
            input_zarr=zarr.open_array(str(path), mode="r"),
            blocksize=BLOCK,
            write_path=str(folder / "labels.zarr"),
            preprocessing_steps=[(put_in_threshold, {})],
            eval_kwargs={"diameter": 1},
            cluster_kwargs=cluster,
        )
    found = {"objects": len(boxes), "versions": {name: version(name) for name in ("cellpose", "zarr", "dask")}}
    sys.stdout.write(json.dumps(found) + "\n")


def put_in_threshold(image: NDArray[np.uint8], crop: tuple[slice, ...]) -> NDArray[np.uint8]:
    """Put a threshold in the network's place, in the worker that is about to load it."""
    import cellpose.models
    from scipy import ndimage

    class Threshold:
        """Bright voxels, joined where they share a face."""

        def eval(self, image: NDArray[np.uint8], **options: object) -> tuple[NDArray[np.int32]]:
            """Label a block."""
            return (ndimage.label(image > 127)[0],)

    cellpose.models.CellposeModel = Threshold
    return image


if __name__ == "__main__" and sys.argv[1] == "run":
    main(Path(sys.argv[2]), Path(sys.argv[3]))
