"""One process that does the job in memory: read, cc3d, write."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import cc3d
import numpy as np
import zarr

CHUNK = (64, 128, 128)


def main(path: Path, folder: Path) -> None:
    """Label the volume and write the ids."""
    mask_zyx = zarr.open_array(str(path), mode="r")[:] > 127
    labels_zyx, count = cc3d.connected_components(
        mask_zyx, connectivity=6, out_dtype=np.uint64, return_N=True, binary_image=True
    )
    target = zarr.create_array(
        store=str(folder / "labels.zarr"), shape=labels_zyx.shape, chunks=CHUNK, dtype=labels_zyx.dtype
    )
    target[:] = labels_zyx
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(json.dumps({"objects": int(count), "peak_bytes_of_a_worker": peak}) + "\n")


if __name__ == "__main__" and sys.argv[1] == "run":
    main(Path(sys.argv[2]), Path(sys.argv[3]))
