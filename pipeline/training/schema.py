"""What a training config file holds: the volumes with their splits, and what the core is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

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


class LabelSection(_Frozen):
    """The labels of one class, where more is to be said than where they are."""

    url: StrictStr
    """Path or URL."""
    values: tuple[Natural, ...] | None = None
    """Labels that are this class; absent: all but the background and the unlabelled."""
    background: Natural = 0
    """The label of voxels outside; CREMI's clefts have 18446744073709551615."""
    unlabelled: tuple[Natural, ...] = ()
    """Labels of voxels whose truth is unknown."""
    offset_zyx: tuple[StrictInt, StrictInt, StrictInt] | None = None
    """Where the first label voxel lies in the image, voxels: labels may cover a part, and the rest has no truth.
    Absent: labels and image have one shape."""


class RegionSection(_Frozen):
    """The part of a volume that is read; every axis that is left out is read whole."""

    z: SliceRange | None = None
    """Slices, half-open, in the volume's own count."""
    y: SliceRange | None = None
    """Rows, half-open."""
    x: SliceRange | None = None
    """Columns, half-open."""


class DatasetSection(_Frozen):
    """A published data set in the layout it is handed out in; see docs/training.md."""

    kind: Literal["lucchi", "lucchi++", "kasthuri++", "mitoem", "cremi", "openorganelle"]
    """Which one."""
    path: StrictStr
    """Folder, file (cremi) or group (openorganelle)."""
    part: StrictStr | None = None
    """lucchi, lucchi++ and kasthuri++: `train` or `test`; mitoem: `train` or `val`."""
    image: StrictStr | None = None
    """openorganelle: the image's group below `path`, such as `em/fibsem-uint8`."""


class VolumeSection(_Frozen):
    """One volume to train on or to choose by: stored, of a published data set, or a phantom."""

    name: StrictStr
    """Name in the log."""
    image: StrictStr | None = None
    """Path or URL of the image; absent for a phantom and a data set."""
    phantom: PhantomSection | None = None
    """A phantom in place of an image; its labels are named in `labels` too."""
    dataset: DatasetSection | None = None
    """A published data set in place of an image; its labels are named in `labels` too."""
    labels: dict[StrictStr, StrictStr | LabelSection]
    """Class name -> path or URL of its labels (0 is background), or a section that says more. For a phantom the layer:
    neurites, mitochondria, synapses, glia. For a data set the name it has there."""
    level: Natural = 0
    """Level of the image's pyramid."""
    region: RegionSection = RegionSection()
    """What is read; nothing learns from or is scored on what lies outside. Slices are counted in the whole volume
    everywhere."""
    voxel_size_zyx_nm: tuple[float, float, float] | None = None
    """Voxel size, nm; by default from the image's metadata."""
    unlabelled: Natural | None = None
    """Label of voxels whose truth is unknown; absent: every voxel is labelled."""
    labelled_slices: tuple[Natural, ...] | None = None
    """Slices whose truth is used for training; absent: all. The others lie in windows but have no truth. The choose
    range keeps its truth."""
    labelled_every: Annotated[StrictInt, Field(ge=1)] | None = None
    """Of the train range, use the truth of the first slice and every n-th after it; in place of `labelled_slices`."""
    train: SliceRange | None = None
    """Slices to train on, half-open."""
    choose: SliceRange | None = None
    """Slices that choose model and thresholds, half-open."""

    @model_validator(mode="after")
    def _check_source(self) -> VolumeSection:
        if sum(source is not None for source in (self.image, self.phantom, self.dataset)) != 1:
            raise ValueError("give one of image, phantom and dataset")
        if self.image is None and not all(isinstance(label, str) for label in self.labels.values()):
            raise ValueError("the labels of a phantom or a data set are names")
        if self.labelled_every is not None and self.labelled_slices is not None:
            raise ValueError("give either labelled_slices or labelled_every")
        self._check_labelled_slices()
        for axis, extent in self.region:
            if extent is not None and extent[0] >= extent[1]:
                raise ValueError(f"region.{axis} {extent} holds nothing; the stop must be above the start")
        for split in (self.train, self.choose):
            read = self.region.z
            if split is not None and read is not None and not read[0] <= split[0] <= split[1] <= read[1]:
                raise ValueError(f"range {split} leaves the slices that are read, {read}")
        return self

    def _check_labelled_slices(self) -> None:
        if self.labelled_slices is None or self.train is None:
            return
        start, stop = self.train
        outside = [index for index in self.labelled_slices if not start <= index < stop]
        if outside:
            raise ValueError(
                f"labelled_slices {outside} lie outside the train range {start}:{stop}; nothing would learn from them"
            )


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
