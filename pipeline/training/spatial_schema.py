"""What a config of `sam4em train-spatial` holds: volumes with a few labelled slices, and what the core is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr

from pipeline.config.schema import StorageSection
from pipeline.config.section import Section
from pipeline.training.schema import VolumeSection


class InferenceSection(Section):
    """How the volumes are segmented at the end of a round."""

    kind: Literal["memory", "pipeline"] = "memory"
    """`memory`: in this process. `pipeline`: through `sam4em segment`'s own workers, block by block; for stored images
    at their full resolution."""
    workers: Annotated[StrictInt, Field(ge=1)] = 2
    """pipeline: worker processes."""
    task_memory_gib: Annotated[float, Field(gt=0)] = 2.0
    """pipeline: host memory of one task, GiB."""
    cluster: StrictStr | None = None
    """pipeline: YAML file that says who starts the workers (configs/clusters), in place of `workers`."""


class SpatialFile(Section):
    """A config file of `sam4em train-spatial`."""

    volumes: Annotated[tuple[VolumeSection, ...], Field(min_length=1)]
    """Volumes; `labelled_slices` or `labelled_every` says which labels are used."""
    auxiliary: tuple[VolumeSection, ...] = ()
    """Fully labelled volumes (phantoms, other data) that propagation is learnt from first."""
    spatial: dict[str, Any]
    """The core's settings; see `sam4em_core.training.spatial_config.SpatialConfig`."""
    inference: InferenceSection = InferenceSection()
    """How a round segments the volumes."""
    score_hidden: StrictBool = False
    """Score pseudo-labels by the labels of the other slices, where the files have them. Nothing learns from these."""
    storage: StorageSection = StorageSection()
    """How stores are reached."""
    run_dir: StrictStr = "spatial-run"
    """Directory of the training, unless the command names one."""
