"""What a training config file holds: the volumes with their splits, and what the core is told."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, model_validator

from pipeline.config.schema import StorageSection

Natural = Annotated[StrictInt, Field(ge=0)]
SliceRange = tuple[Natural, Natural]


class _Frozen(BaseModel):
    """Immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhantomSection(_Frozen):
    """A phantom to draw; every field but the labels is one of `PhantomSpec`."""

    seed: StrictInt
    """Seed of the tissue."""
    shape_zyx: tuple[StrictInt, StrictInt, StrictInt]
    """Extent, voxels."""
    voxel_size_zyx_nm: tuple[float, float, float]
    """Voxel size, nm."""
    noise_sigma: float | None = None
    """Standard deviation of the noise, grey values of 0..255; the phantom's default where absent."""
    contrast_drift_fraction: float | None = None
    """Slow relative change of brightness; the phantom's default where absent."""
    section_jitter_nm: float | None = None
    """Sideways displacement of the sections, nm; the phantom's default where absent."""
    missing_section_fraction: float | None = None
    """Share of blank sections; the phantom's default where absent."""
    damaged_section_fraction: float | None = None
    """Share of damaged sections; the phantom's default where absent."""


class VolumeSection(_Frozen):
    """One volume to train on or to choose by: stored, or a phantom."""

    name: StrictStr
    """Name in the log."""
    image: StrictStr | None = None
    """Path or URL of the image; absent for a phantom."""
    phantom: PhantomSection | None = None
    """A phantom in place of an image; its labels are named in `labels` too."""
    labels: dict[StrictStr, StrictStr]
    """Class name -> path or URL of its labels (0 is background), or, for a phantom, the layer: neurites,
    mitochondria, synapses, glia."""
    voxel_size_zyx_nm: tuple[float, float, float] | None = None
    """Voxel size, nm; by default from the image's metadata."""
    unlabelled: Natural | None = None
    """Label of voxels whose truth is unknown; absent: every voxel is labelled."""
    labelled_slices: tuple[Natural, ...] | None = None
    """Slices whose truth is used for training; absent: all. The others lie in windows but have no truth. The choose
    range keeps its truth."""
    labelled_every: Annotated[StrictInt, Field(ge=1)] | None = None
    """Of the train range, use the truth of the first slice and every n-th after it; in place of `labelled_slices`."""
    read_slices: Annotated[StrictInt, Field(ge=1)] | None = None
    """How many slices are read, from the first; absent: all. What lies beyond is never touched."""
    train: SliceRange | None = None
    """Slices to train on, half-open."""
    choose: SliceRange | None = None
    """Slices that choose model and thresholds, half-open."""

    @model_validator(mode="after")
    def _check_source(self) -> VolumeSection:
        if (self.image is None) == (self.phantom is None):
            raise ValueError("give either image or phantom")
        if self.labelled_every is not None and self.labelled_slices is not None:
            raise ValueError("give either labelled_slices or labelled_every")
        for split in (self.train, self.choose):
            if split is not None and self.read_slices is not None and split[1] > self.read_slices:
                raise ValueError(f"range {split} lies beyond the {self.read_slices} slices that are read")
        return self


class TrainingFile(_Frozen):
    """A training config file: the volumes, and what the core is told."""

    volumes: tuple[VolumeSection, ...] = Field(min_length=1)
    """Volumes, each with its splits."""
    training: dict[str, Any]
    """The core's settings; see `sam4em_core.training.config.TrainingConfig`."""
    storage: StorageSection = StorageSection()
    """How stores are reached."""
    run_dir: StrictStr = "train-run"
    """Directory of the run, unless the command names one."""
