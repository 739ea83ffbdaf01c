"""The plan of a run: everything a stage must know, made once by the driver and sent once to each worker.

Three lattices share one origin, the region of interest's first voxel:

    source   the pyramid level that is read          image, mask
    working  the model's voxel size                  predict: probabilities
    output   the voxel size that is written          label, match, relabel, pyramid

The plan holds grids, never lists of blocks: its size does not depend on the volume's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config import RunConfig
from pipeline.geometry import BlockGrid, Box, GroupTree, Spacing, Vector
from pipeline.image import GreyRange
from pipeline.labels.splits import VALLEY_FRACTION
from pipeline.storage import ImageSpec, LabelFormat, LabelVolumeSpec

UINT8_ONE = 255
"""A probability of 1 as it is stored."""


@dataclass(frozen=True)
class ClassPlan:
    """How one class is labelled and stitched."""

    name: str
    """Name in the config, in folders and in the instance table."""
    channel: int
    """Index of the class among the model's probabilities."""
    kind: Literal["instances", "semantic"]
    """Objects with ids, or one mask with one id."""
    method: Literal["components", "watershed"]
    """How objects part."""
    threshold: int
    """A voxel is inside from this stored probability, 1..255."""
    seed_threshold: int | None
    """An object needs a voxel from this stored probability; None: no such need."""
    fill_holes_voxels: int
    """Holes below this extent along every axis are filled; 0: none."""
    min_size_voxels: int
    """Objects with fewer output voxels are dropped."""
    stitch: Literal["any", "iou"]
    """When labels of two blocks are one object."""
    min_iou: float
    """Overlap-IoU from which two labels are one, with `iou`."""
    seed_spacing_nm: float
    """Watershed seeds nearer than this are one."""
    sdf_channel: int | None = None
    """Channel of the signed distances that the watershed floods; None: it floods distances to the mask's outside."""
    sdf_tau_nm: float = 0.0
    """Where the signed distances are cut off."""
    valley_fraction: float = VALLEY_FRACTION
    """Share of the lower peak below which a valley of signed distances parts two objects."""


@dataclass(frozen=True)
class OutputPlan:
    """One output volume of one class."""

    format: LabelFormat
    """Format on disk."""
    class_index: int
    """Index into `RunPlan.classes`."""
    spec: LabelVolumeSpec
    """Everything that decides its metadata, with its address; `label_writer(format, spec)` writes it."""
    write_units_zyx: tuple[Vector, ...]
    """Per level: what has one writer and is written whole: the shard where there is one, else the chunk."""
    num_segment_properties: int
    """Precomputed: objects listed for Neuroglancer, the largest ones."""

    @property
    def url(self) -> str:
        """Where this class is written."""
        return self.spec.url


@dataclass(frozen=True)
class PredictionPlan:
    """One volume of what the model predicts."""

    channel: int
    """Index among what the model gives."""
    spec: ImageSpec
    """Everything that decides its metadata, with its address; its chunks nest in the blocks of the predict stage."""


@dataclass(frozen=True)
class Restitch:
    """Where a run gets its labels that makes none itself."""

    run_url: str
    """Run directory that has the labels, their measures and the overlaps."""
    classes: tuple[ClassPlan, ...]
    """The classes as that run labelled them."""
    orders_key: str | None = None
    """Object in the own run directory with the pairs that must, or must not, be one; None: there are none."""


@dataclass(frozen=True)
class RunPlan:
    """Everything a stage must know."""

    config: RunConfig
    """The resolved config."""
    run_url: str
    """Run directory: manifest, journal, tables, scratch arrays."""
    image_level: int
    """Pyramid level that is read."""
    source_origin_zyx: Vector
    """First voxel of the region of interest, in voxels of the level read."""
    source_bounds: Box
    """Voxels of the level that exist, relative to `source_origin_zyx` (so its start is <= 0)."""
    source_voxel_size_nm: Spacing
    """Voxel size of the level read."""
    source_voxel_bytes: int
    """Bytes of one voxel of it."""
    source_layer_slices: int
    """Slices of it that are read at a time: whole chunks."""
    working_voxel_size_nm: Spacing
    """The model's voxel size; the source's where the model has none."""
    output_voxel_size_nm: Spacing
    """Voxel size that is written."""
    takes_raw_grey: bool
    """The segmenter reads grey values as they are stored; else resampled to the working lattice, in [0, 1]."""
    grey_range: GreyRange
    """The grey values that map to 0 and 1, the same for every block."""
    working_bounds: Box
    """`source_bounds` on the working lattice."""
    working_domain: Box
    """The region of interest on the working lattice; starts at (0, 0, 0)."""
    output_domain: Box
    """The region of interest on the output lattice; starts at (0, 0, 0)."""
    output_offset_zyx: Vector
    """The region's first voxel in voxels of the output lattice of the full volume."""
    predict_grid: BlockGrid | None
    """Blocks of the predict stage on the working lattice; None: probabilities are made in the label stage."""
    label_grid: BlockGrid
    """Blocks of the label stage on the output lattice."""
    label_halo_zyx: Vector
    """Voxels that a label block computes beyond its core on every side; two neighbors share twice this."""
    group_tree: GroupTree
    """Groups of label blocks that resolve solves, one task each, up to the one that holds all blocks."""
    relabel_grid: BlockGrid
    """Tasks of the relabel stage: whole write units of every output."""
    mip_factors: tuple[Vector, ...]
    """Down-sampling from each level to the next; one entry fewer than there are levels."""
    pyramid_grids: tuple[BlockGrid, ...]
    """Tasks of the pyramid stage, one grid per level above the full one: whole write units of every output."""
    class_names: tuple[str, ...]
    """The model's classes, in channel order."""
    classes: tuple[ClassPlan, ...]
    """The classes that are written."""
    outputs: tuple[OutputPlan, ...]
    """One volume per output and class."""
    predictions: tuple[PredictionPlan, ...] = ()
    """Predictions that are kept as volumes, on the working lattice."""
    restitch: Restitch | None = None
    """Set where labels, measures and overlaps are those of another run."""

    @property
    def labels_url(self) -> str:
        """Run directory that has the labels, their measures and the overlaps."""
        return self.run_url if self.restitch is None else self.restitch.run_url

    @property
    def labelled_classes(self) -> tuple[ClassPlan, ...]:
        """The classes as they were labelled: a slab is as thick as they say."""
        return self.classes if self.restitch is None else self.restitch.classes

    @property
    def num_channels(self) -> int:
        """Channels that predict keeps: the classes, and their signed distances where a watershed floods them."""
        needs_sdf = any(rule.sdf_channel is not None for rule in self.classes)
        return len(self.class_names) * (2 if needs_sdf else 1)

    @property
    def source_to_working(self) -> Spacing:
        """Working spacing / source spacing."""
        source, working = self.source_voxel_size_nm, self.working_voxel_size_nm
        return (working[0] / source[0], working[1] / source[1], working[2] / source[2])

    @property
    def working_to_output(self) -> Spacing:
        """Output spacing / working spacing."""
        working, output = self.working_voxel_size_nm, self.output_voxel_size_nm
        return (output[0] / working[0], output[1] / working[1], output[2] / working[2])

    @property
    def num_mips(self) -> int:
        """Pyramid levels with the full one."""
        return len(self.pyramid_grids) + 1
