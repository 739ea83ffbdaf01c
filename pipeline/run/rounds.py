"""A round of a dual-track training segments a volume as any user would: a run with its predictions kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.config import RunConfig
from pipeline.config.read import parse_config, read_yaml
from pipeline.errors import TaskFailed
from pipeline.geometry import Box
from pipeline.run.launch import run_config
from pipeline.run.predictions import predictions_url
from pipeline.segmenter import describe_segmenter
from pipeline.storage import open_volume
from pipeline.telemetry import make_reporter
from pipeline.training.spatial import RoundRequest

_COMPLETE: Final = ("complete", "already complete")


def segment_round(request: RoundRequest) -> NDArray[np.uint8]:
    """Segment a volume block by block; an interrupted run goes on.

    Args:
        request: what, with which network, and where.

    Returns:
        Bytes (channels, z, y, x) on the model's lattice: probabilities, then signed distances where the model has a
        U-Net.

    Raises:
        TaskFailed: the run did not end.
        Sam4emError: see `pipeline.run.launch.run_config`.
    """
    config = round_config(request)
    summary = run_config(config, reporter=make_reporter())
    if summary.status not in _COMPLETE:
        raise TaskFailed(f"segmenting {request.name} for the next round: the run is {summary.status}; resume")
    folder = Path(predictions_url(config.outputs[0].url))
    kinds = ["probability"] + (["distance"] if config.predictions.distances else [])
    return np.stack([_read(folder / f"{kind}-{name}.zarr") for kind in kinds for name in request.classes])


def round_config(request: RoundRequest) -> RunConfig:
    """Give the config of a round's run."""
    cluster: Any = {"workers": request.inference.workers}
    if request.inference.cluster is not None:
        cluster = read_yaml(request.inference.cluster)
    roi = request.roi
    values: dict[str, Any] = {
        "image": {
            "url": request.image_url,
            "voxel_size_zyx_nm": request.voxel_size_zyx_nm,
            "level": 0,
            "roi": ",".join(f"{start}:{stop}" for start, stop in zip(roi.start, roi.stop, strict=True)),
        },
        "outputs": [{"url": str(request.place / f"{request.name}.zarr")}],
        "segmenter": {
            "kind": "sam4em",
            "model": str(request.checkpoint),
            "device": request.device,
            "force_voxel_size": True,
        },
        "classes": {name: {} for name in request.classes},
        "predictions": {"probabilities": True},
        "plan": {"task_memory_gib": request.inference.task_memory_gib},
        "cluster": cluster,
        "storage": request.storage,
    }
    config = parse_config(values, RunConfig, f"round of {request.name}")
    demand = describe_segmenter(config.segmenter, request.voxel_size_zyx_nm)
    kept = config.predictions.model_copy(update={"distances": demand.sdf_tau_nm is not None})
    return config.model_copy(update={"predictions": kept})


def _read(path: Path) -> NDArray[np.uint8]:
    volume = open_volume(str(path))
    layer: NDArray[np.uint8] = volume.read(Box.of_shape(volume.info.shape))
    return layer
