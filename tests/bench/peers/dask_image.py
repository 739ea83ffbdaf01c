"""`dask_image.ndmeasure.label` on two threads, the same blocks."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

# The folder of this file comes first on the path, and this file has the package's name.
sys.path.pop(0)

import dask
import dask.array as da
import zarr
from dask_image import ndmeasure

BLOCK = (64, 256, 512)
CHUNK = (64, 128, 128)


def main(path: Path, folder: Path) -> None:
    """Label the volume and write the ids."""
    image = da.from_zarr(str(path)).rechunk(BLOCK)
    labels, count = ndmeasure.label(image > 127)
    target = zarr.create_array(store=str(folder / "labels.zarr"), shape=labels.shape, chunks=CHUNK, dtype=labels.dtype)
    with dask.config.set(scheduler="threads", num_workers=2):
        _, found = dask.compute(da.store(labels, target, compute=False), count)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    versions = {"dask": dask.__version__, "zarr": zarr.__version__}
    sys.stdout.write(json.dumps({"objects": int(found), "peak_bytes_of_a_worker": peak, "versions": versions}) + "\n")


if __name__ == "__main__" and sys.argv[1] == "run":
    main(Path(sys.argv[2]), Path(sys.argv[3]))
