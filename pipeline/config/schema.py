"""The schema of a run's config. Defaults stand here and nowhere else; every field carries its unit.

Fields of `cluster`, `faults`, `prices`, `storage.credentials` and `logging` change how a run is carried out; all others
change its result, and a resumed run must agree on them (`RESULT_SECTIONS`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from pipeline.config.clusters import ClusterSection, LocalCluster
from pipeline.config.section import Fraction, Nanometers, NotNegative, PositiveFloat, PositiveInt, Section, Voxels
from pipeline.config.shapes import MeshSection, SkeletonSection

RESULT_SECTIONS = ("image", "outputs", "segmenter", "classes", "predictions", "plan")
"""Sections that change the result; the others only change how it is made."""


class StorageSection(Section):
    """How stores are reached. Secrets never stand in a config, only where to find them."""

    endpoint_url: StrictStr | None = Field(None, description="URL of an S3-compatible server")
    region: StrictStr | None = Field(None, description="region of the object store")
    credentials: StrictStr = Field(
        "environment",
        description="'environment', 'anonymous' or 'profile:NAME'",
        pattern=r"^(environment|anonymous|profile:.+)$",
    )
    timeout_s: PositiveFloat = Field(
        60.0, description="s3: an answer that takes longer, in seconds, counts as lost and is asked for again"
    )
    keep_intermediates: StrictBool = Field(
        False, description="`sam4em clean` leaves probabilities and local labels where they are"
    )


class ImageSection(Section):
    """The volume to segment."""

    url: StrictStr = Field(description="path or URL of the image volume")
    voxel_size_zyx_nm: Nanometers | None = Field(None, description="voxel size in nm; default: the volume's metadata")
    level: Annotated[StrictInt, Field(ge=0)] | None = Field(
        None, description="pyramid level to read; default: the one nearest to the model's voxel size"
    )
    roi: StrictStr | None = Field(
        None,
        description="z0:z1,y0:y1,x0:x1 in voxels of the full volume",
        pattern=r"^\d+:\d+,\d+:\d+,\d+:\d+$",
    )
    mask_url: StrictStr | None = Field(None, description="label volume; blocks without a mask voxel are skipped")
    mask_voxel_size_zyx_nm: Nanometers | None = Field(
        None, description="voxel size of the mask in nm; default: its metadata"
    )


class OutputSection(Section):
    """One label volume to write per class."""

    url: StrictStr = Field(description="where to write; .zarr is OME-Zarr, anything else precomputed")
    chunk_zyx: Voxels = Field((64, 64, 64), description="chunk shape in voxels")
    shard_zyx: Voxels | None = Field(
        None,
        description="shard shape in voxels, a multiple of the chunk; default: not sharded up to 100,000 chunks, else "
        "as large as the memory of a task allows, at most 512 MiB of ids",
    )
    num_mips: Annotated[StrictInt, Field(ge=1, le=16)] | None = Field(
        None,
        description="pyramid levels with the full one; default: until one chunk holds yx, at most 8",
    )
    num_segment_properties: Annotated[StrictInt, Field(ge=0)] = Field(
        50_000, description="precomputed: class and size of so many of the largest objects, for Neuroglancer's list"
    )

    @property
    def format(self) -> Literal["ome-zarr", "precomputed"]:
        """The format that the address asks for."""
        return "ome-zarr" if self.url.rstrip("/").endswith(".zarr") else "precomputed"


class ThresholdSegmenter(Section):
    """Smooth and threshold grey values: the baseline."""

    kind: Literal["threshold"] = Field(description="the torch-free baseline")
    foreground: Literal["bright", "dark"] = Field("dark", description="which grey values are the objects")
    smoothing_nm: Annotated[float, Field(ge=0)] = Field(0.0, description="sigma of a Gaussian in nm; 0: none")
    class_name: StrictStr = Field("object", description="name of the only class")


class Sam4emSegmenter(Section):
    """SAM2 adapted to electron microscopy."""

    kind: Literal["sam4em"] = Field(description="a SAM4EM model")
    model: StrictStr = Field("mito-lucchi", description="name of a shipped model or path of a .safetensors file")
    device: StrictStr = Field(
        "auto", description="'auto', 'cpu', 'cuda' or 'cuda:N'", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    threads: PositiveInt = Field(1, description="CPU threads of the model per worker; changes rounding")
    batch_tiles: PositiveInt | None = Field(
        None, description="tiles per model call; default: the model's; changes rounding"
    )
    test_time_flips: StrictBool = Field(
        False, description="average over tiles mirrored along y, x and both: four times the model's time"
    )
    force_voxel_size: StrictBool = Field(False, description="run outside the range of voxel sizes the model accepts")


# That of `labels.splits`, which the config does not import: it needs the libraries that part objects.
_VALLEY_FRACTION = 0.4


class InstanceRule(Section):
    """How the probabilities of one class become labels."""

    kind: Literal["instances", "semantic"] = Field("instances", description="objects with ids, or one mask")
    method: Literal["components", "watershed"] = Field("components", description="how objects part")
    watershed_on: Literal["mask", "sdf"] = Field(
        "mask",
        description="watershed: distance to the outside of the mask, or the signed distance that the model predicts",
    )
    threshold: Fraction | None = Field(
        None, description="probability from which a voxel is inside; default: the model's"
    )
    seed_threshold: Fraction | None = Field(
        None, description="an object needs one voxel above this probability; default: none"
    )
    fill_holes_voxels: Annotated[StrictInt, Field(ge=0, le=256)] = Field(
        0, description="fill holes whose extent along every axis is below this number of voxels"
    )
    min_size_nm3: Annotated[float, Field(ge=0)] = Field(0.0, description="smaller objects are dropped, in nm^3")
    stitch: Literal["any", "iou"] | None = Field(
        None,
        description="when labels of two blocks are one; default: any for components, else iou",
    )
    min_iou: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="overlap-IoU from which two labels are one, with stitch: iou"
    )
    seed_spacing_nm: PositiveFloat = Field(200.0, description="watershed seeds nearer than this are one, in nm")
    valley_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        _VALLEY_FRACTION,
        description="watershed_on: sdf: objects part where the distance between them falls below this share of the "
        "lower peak; a larger share parts more",
    )

    @model_validator(mode="after")
    def _rule_fits_method(self) -> InstanceRule:
        if self.method == "watershed" and self.stitch == "any":
            raise ValueError("stitch: any undoes a watershed: touching objects share voxels; use stitch: iou")
        if self.watershed_on == "sdf" and (self.method != "watershed" or self.kind == "semantic"):
            raise ValueError("watershed_on: sdf parts nothing without kind: instances and method: watershed")
        if self.valley_fraction != _VALLEY_FRACTION and self.watershed_on != "sdf":
            raise ValueError("valley_fraction is about predicted distances; it needs watershed_on: sdf")
        if self.seed_threshold is not None and self.threshold is not None and self.seed_threshold < self.threshold:
            raise ValueError(f"seed_threshold {self.seed_threshold} must not be below threshold {self.threshold}")
        return self

    @property
    def stitch_rule(self) -> Literal["any", "iou"]:
        """The rule that is used."""
        return self.stitch or ("iou" if self.method == "watershed" else "any")


class PredictionSection(Section):
    """What the model predicts, kept as volumes in `OUTPUT.predictions` beside the first output."""

    probabilities: StrictBool = Field(False, description="keep the probability of every class, uint8, 255 is 1")
    distances: StrictBool = Field(
        False, description="keep the signed distance of every class, uint8, from 128 on inside; 0 and 255 are tau"
    )


class PlanSection(Section):
    """How the volume is cut. The result does not depend on it, up to the renaming of ids."""

    block_zyx: Voxels | None = Field(
        None, description="core of a label block in output voxels; default: as the memory allows"
    )
    predict_block_zyx: Voxels | None = Field(
        None,
        description="core of a model block in working voxels, whole z windows; default: by memory",
    )
    watershed_halo_voxels: Annotated[StrictInt, Field(ge=12)] = Field(
        24, description="halo of watershed blocks; two neighbors compare at least 24 voxels around their face"
    )
    resolve_group_blocks: PositiveInt = Field(
        512, description="label blocks that one resolve task solves together; larger runs are solved as a tree"
    )
    task_memory_gib: PositiveFloat = Field(2.0, description="host memory of one task in GiB; blocks are made to fit")
    device_memory_gib: PositiveFloat = Field(16.0, description="accelerator memory of one worker in GiB")
    output_voxel_size_zyx_nm: Nanometers | None = Field(
        None, description="voxel size of the output; default: the level read"
    )


class PriceSection(Section):
    """What a site pays, in any currency: only `sam4em plan` reads it."""

    gpu_hour: NotNegative | None = Field(None, description="price of a GPU worker per hour")
    cpu_hour: NotNegative | None = Field(None, description="price of a CPU worker per hour")
    terabyte_month: NotNegative | None = Field(None, description="price of storing 10^12 bytes for a month")
    million_writes: NotNegative | None = Field(None, description="price of writing 10^6 objects")


class FaultSection(Section):
    """What happens when a task fails."""

    retries: Annotated[StrictInt, Field(ge=0, le=100)] = Field(
        3, description="more tries of a task whose error may pass"
    )
    max_failed_tasks: PositiveInt = Field(1000, description="the run stops when so many tasks have failed for good")


class LoggingSection(Section):
    """What is told on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe message shown")


class RunConfig(Section):
    """A whole run."""

    image: ImageSection
    outputs: Annotated[tuple[OutputSection, ...], Field(min_length=1)]
    segmenter: Annotated[ThresholdSegmenter | Sam4emSegmenter, Field(discriminator="kind")]
    classes: dict[StrictStr, InstanceRule] = Field(
        default_factory=dict,
        description="classes to write and how; default: every class of the model, as instances",
    )
    predictions: PredictionSection = PredictionSection()
    plan: PlanSection = PlanSection()
    mesh: MeshSection | None = Field(None, description="meshes of the objects; default: none")
    skeleton: SkeletonSection | None = Field(None, description="skeletons of the objects; default: none")
    cluster: ClusterSection = LocalCluster()
    faults: FaultSection = FaultSection()
    prices: PriceSection = PriceSection()
    storage: StorageSection = StorageSection()
    logging: LoggingSection = LoggingSection()

    @model_validator(mode="after")
    def _names_are_usable(self) -> RunConfig:
        for name in self.classes:
            if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
                raise ValueError(f"class name {name!r} must be made of letters, digits, '-' and '_': it names a folder")
        folded = [name.casefold() for name in self.classes]
        if len(set(folded)) != len(folded):
            raise ValueError(f"class names {sorted(self.classes)} clash when case is ignored")
        urls = [output.url.rstrip("/") for output in self.outputs]
        if len(set(urls)) != len(urls):
            raise ValueError(f"two outputs have the same url: {urls}")
        return self
