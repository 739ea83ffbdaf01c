"""What a config of `sam4em train-spatial` holds: volumes with a few labelled slices, and what the core is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr

from pipeline.config.schema import StorageSection
from pipeline.config.section import Section
from pipeline.training.schema import VolumeSection

Roi = Annotated[StrictStr, Field(pattern=r"^\d+:\d+,\d+:\d+,\d+:\d+$")]
"""z0:z1,y0:y1,x0:x1."""


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


class SegmentSection(Section):
    """A whole image that is segmented with the network of the best round, once the training has ended."""

    volume: StrictStr
    """Name of one of `volumes`; all of its image is segmented, not the region that is learnt from alone."""
    outputs: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    """Where to write, all with the same ids: .zarr is OME-Zarr, anything else precomputed."""
    watershed: StrictBool = True
    """Part touching objects along the signed distances; else objects are connected components."""
    min_size_nm3: Annotated[float, Field(ge=0)] = 1e6
    """Smaller objects are dropped, nm^3."""
    roi: Roi | None = None
    """Segment this region alone: z0:z1,y0:y1,x0:x1 in voxels of the image."""
    truth: dict[StrictStr, StrictStr] = Field(default_factory=dict)
    """Label volumes to score against, by class; scores end in `segmentations.json`."""
    score_roi: Roi | None = None
    """Score this region alone, in voxels of the truth: slices that nothing was learnt or chosen from."""
    workers: Annotated[StrictInt, Field(ge=1)] = 2
    """Worker processes."""
    task_memory_gib: Annotated[float, Field(gt=0)] = 2.0
    """Host memory of one task, GiB; blocks are made to fit."""
    cluster: StrictStr | None = None
    """YAML file that says who starts the workers (configs/clusters), in place of `workers`."""


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
    segment: tuple[SegmentSection, ...] = ()
    """Images that are segmented, and scored, when the training has ended."""
    score_hidden: StrictBool = False
    """Score pseudo-labels by the labels of the other slices, where the files have them. Nothing learns from these."""
    storage: StorageSection = StorageSection()
    """How stores are reached."""
    run_dir: StrictStr = "spatial-run"
    """Directory of the training, unless the command names one."""
