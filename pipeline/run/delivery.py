"""The end of `sam4em train-spatial`: whole images segmented with the network of the best round, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.config import RunConfig
from pipeline.config.read import parse_config, read_yaml
from pipeline.config.schema import StorageSection
from pipeline.run import api
from pipeline.run.compare import evaluate_stored
from pipeline.run.outputs import class_url
from pipeline.run.reports import write_report
from pipeline.segmenter import model_header
from pipeline.training.schema import VolumeSection
from pipeline.training.spatial_schema import SegmentSection, SpatialFile

SEGMENTATIONS_FILE: Final = "segmentations.json"


def segment_best(file: SpatialFile, checkpoint: Path) -> dict[str, dict[str, Any]]:
    """Segment what the config asks for; an interrupted run goes on, a complete one is only scored again.

    Args:
        file: the config of the training.
        checkpoint: the network of the best round; what was found ends beside it.

    Returns:
        Per output and class what was written, and its scores where there is a truth.

    Raises:
        Sam4emError: see `pipeline.run.api.run_config` and `pipeline.run.compare.evaluate_stored`.
        SystemExit: Ctrl-C, after everything in flight was recorded.
    """
    volumes = {section.name: section for section in file.volumes}
    found: dict[str, dict[str, Any]] = {}
    for section in file.segment:
        classes = model_header(str(checkpoint)).classes
        config = delivery_config(section, volumes[section.volume], classes, file.storage, checkpoint)
        summary = api.run_config(config)
        for name in classes:
            url = class_url(section.outputs[0], name, len(classes))
            found[url] = {"volume": section.volume, "class": name, "run": summary}
            if name in section.truth:
                scores = evaluate_stored(url, section.truth[name], roi=section.score_roi, storage=file.storage)
                found[url]["scores"] = scores.as_dict()
    if found:
        write_report(checkpoint.parent / SEGMENTATIONS_FILE, found)
    return found


def delivery_config(
    section: SegmentSection, volume: VolumeSection, classes: Sequence[str], storage: StorageSection, checkpoint: Path
) -> RunConfig:
    """Give the config of the run that segments one image.

    Raises:
        ConfigError: a value does not fit.
    """
    cluster: Any = {"workers": section.workers} if section.cluster is None else read_yaml(section.cluster)
    rule: dict[str, Any] = {"min_size_nm3": section.min_size_nm3}
    if section.watershed:
        rule |= {"method": "watershed", "watershed_on": "sdf"}
    values: dict[str, Any] = {
        "image": {
            "url": volume.image,
            "voxel_size_zyx_nm": volume.voxel_size_zyx_nm,
            "level": volume.level,
            "roi": section.roi,
        },
        "outputs": [{"url": url} for url in section.outputs],
        # The network was made for these voxels, whatever range its checkpoint states.
        "segmenter": {"kind": "sam4em", "model": str(checkpoint), "force_voxel_size": True},
        "classes": dict.fromkeys(classes, rule),
        "plan": {"task_memory_gib": section.task_memory_gib},
        "cluster": cluster,
        "storage": storage.model_dump(mode="json"),
    }
    return parse_config(values, RunConfig, f"segment: {section.volume}")
