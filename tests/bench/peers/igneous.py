"""igneous' CCL on two processes: faces, equivalences, relabel; from and to precomputed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

# The folder of this file comes first on the path, and this file has the package's name.
sys.path.pop(0)

import numpy as np
import zarr
from cloudvolume import CloudVolume

SHAPE_XYZ = (512, 256, 64)
CHUNK_XYZ = (128, 128, 64)


def prepare(path: Path, folder: Path) -> None:
    """Write the volume as precomputed: igneous reads nothing else."""
    image_zyx = zarr.open_array(str(path), mode="r")[:]
    info = CloudVolume.create_new_info(
        1, "image", "uint8", "raw", (8, 8, 8), (0, 0, 0), image_zyx.shape[::-1], chunk_size=CHUNK_XYZ
    )
    cloud = CloudVolume(f"file://{folder}/image", info=info, progress=False)
    cloud.commit_info()
    cloud[:, :, :] = image_zyx.T[..., None]


def main(folder: Path) -> None:
    """Label the volume and write the ids."""
    import igneous.task_creation as tasks
    from igneous.tasks.image.ccl import create_relabeling
    from taskqueue import LocalTaskQueue

    source, target = f"file://{folder}/image", f"file://{folder}/labels"
    queue = LocalTaskQueue(parallel=2)
    for create in (tasks.create_ccl_face_tasks, tasks.create_ccl_equivalence_tasks):
        queue.insert(create(source, mip=0, shape=SHAPE_XYZ, threshold_gte=128))
        queue.execute()
    create_relabeling(source, mip=0, shape=SHAPE_XYZ)
    queue.insert(
        tasks.create_ccl_relabel_tasks(source, target, mip=0, shape=SHAPE_XYZ, chunk_size=CHUNK_XYZ, threshold_gte=128)
    )
    queue.execute()
    labels = CloudVolume(target, progress=False)[:, :, :]
    sys.stdout.write(json.dumps({"objects": int((np.unique(np.asarray(labels)) > 0).sum())}) + "\n")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main(Path(sys.argv[3]))
