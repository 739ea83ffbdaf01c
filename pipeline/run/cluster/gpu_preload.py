"""Runs in every GPU worker before it reports for work: `dask worker --preload pipeline.run.cluster.gpu_preload`.

Several workers in one job see the same GPUs; each keeps one, chosen by the number at the end of its name. A worker
that has none ends at once, so that a broken node takes no block; otherwise the model would run on its CPU.
"""

from __future__ import annotations

import os
from typing import Final

from distributed import Worker

from pipeline.errors import DeviceLost, OurError
from pipeline.segmenter import count_gpus

WORKERS_PER_JOB: Final = "SAM4EM_WORKERS_PER_JOB"
REQUIRE_GPU: Final = "SAM4EM_REQUIRE_GPU"


def dask_setup(worker: Worker) -> None:
    """Choose this worker's GPU; called by Dask.

    Raises:
        DeviceLost: a GPU is required, and torch sees none.
    """
    workers = int(os.environ.get(WORKERS_PER_JOB, "1"))
    if workers > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = choose_device(visible, str(worker.name), workers)
    if os.environ.get(REQUIRE_GPU) == "1" and count_gpus() == 0:
        raise DeviceLost(
            f"starting GPU worker {worker.name}: torch sees no GPU, CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES')!r}; ask for GPUs in the job's directives, and check `nvidia-smi`"
        )


def choose_device(visible: str | None, worker_name: str, workers: int) -> str:
    """Choose the GPU of one of several workers in a job.

    Args:
        visible: what CUDA_VISIBLE_DEVICES says; None: not set, all of the machine.
        worker_name: ends with `-` and the number of the worker in its job.
        workers: workers of the job.

    Raises:
        DeviceLost: the job has fewer GPUs than workers.
        OurError: the name has no number.
    """
    number = worker_name.rpartition("-")[2]
    if not number.isdecimal():
        raise OurError(f"choosing a GPU: worker {worker_name!r} has no number at the end of its name")
    devices = [str(index) for index in range(workers)]
    if visible is not None:
        devices = [name.strip() for name in visible.split(",") if name.strip()]
    if int(number) >= len(devices):
        raise DeviceLost(
            f"choosing a GPU for worker {worker_name}: the job has {len(devices)} ({visible}) for {workers} workers; "
            "workers_per_job must be the number of GPUs that the job asks for"
        )
    return devices[int(number)]
