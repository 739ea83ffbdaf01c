"""The data sets: where they lie, how they are split, and reading them into arrays.

Splits follow the data's README. The phantom benchmark is made by `pipeline.phantom`; its seeds, shapes, splits and
scorer are fixed here: another value is another benchmark.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rows import labelled_slices

if TYPE_CHECKING:
    import numpy.typing as npt

    from sam4em_core.training import TrainingVolume
    from sam4em_core.training.validate import ChooseRegion

REPOSITORY = Path(__file__).resolve().parents[3]
BASE = REPOSITORY / "sam4em_core/models/phantom.safetensors"
MEMORY_BASE = REPOSITORY / "sam4em_core/models/phantom-memory.safetensors"
SPATIAL_BASE = REPOSITORY / "sam4em_core/models/phantom-spatial.safetensors"
UNET_BASE = REPOSITORY / "sam4em_core/models/unets/phantom-sdf.safetensors"
UNLABELLED = 255
CONTEXT_SLICES = 12
"""Working slices of image around the slices that are scored, where the volume has them."""
UNET_CONTEXT_SLICES = 128
"""The same for networks around a U-Net: its whole patches, as in a segmentation of the whole volume."""

Vector = tuple[int, int, int]
Nanometers = tuple[float, float, float]
Span = tuple[int, int]


@dataclass(frozen=True)
class ClassSource:
    """Truth of one class."""

    name: str
    """Name of the class."""
    layer: str
    """Array under the volume, or layer of the phantom."""
    value: int | None = None
    """Label of the class in that array; None: every label but 0."""
    objects: bool = True
    """Whether it has objects that can be counted; a sheet has none."""


@dataclass(frozen=True)
class PhantomPart:
    """One synthetic volume."""

    seed: int
    """Seed of the tissue."""
    shape_zyx: Vector
    """Extent, voxels."""


@dataclass(frozen=True)
class SetSpec:
    """One data set with its splits; everything that a row's digest must know of it."""

    title: str
    """Name in the tables."""
    classes: tuple[ClassSource, ...]
    """Classes in channel order."""
    voxel_size_zyx_nm: Nanometers
    """Voxel size of image and truth, nm; scores are counted here."""
    working_zyx_nm: Nanometers
    """Voxel size that every method works at, nm."""
    min_object_voxels: int
    """Smaller objects, predicted or true, are left out of AP and VOI."""
    base: bool
    """Whether networks of ours start from the shipped base `phantom`."""
    stored: str | None = None
    """Zarr group with `raw/0`, relative to the repository; its splits are below."""
    train: Span = (0, 0)
    """Slices to train on."""
    choose: Span = (0, 0)
    """Slices that choose weights and thresholds."""
    report: Span = (0, 0)
    """Slices that are scored, once."""
    train_parts: tuple[PhantomPart, ...] = ()
    """Phantoms to train on."""
    choose_part: PhantomPart | None = None
    """Phantom that chooses."""
    report_part: PhantomPart | None = None
    """Phantom that is scored."""


def _lucchi(working_nm: float) -> SetSpec:
    return SetSpec(
        title=f"Lucchi++ at {working_nm:g} nm",
        classes=(ClassSource("mitochondrion", "mito/0"),),
        voxel_size_zyx_nm=(5.0, 5.0, 5.0),
        working_zyx_nm=(working_nm, working_nm, working_nm),
        min_object_voxels=500,
        base=True,
        stored="../shared/data/lucchi_pp_train.zarr",
        train=(0, 116),
        choose=(120, 136),
        report=(140, 165),
    )


SETS: dict[str, SetSpec] = {
    "lucchi": _lucchi(10.0),
    "lucchi-5nm": _lucchi(5.0),
    "phantom": SetSpec(
        title="Phantom: astrocytic processes and synapses",
        classes=(ClassSource("astrocyte", "glia", objects=False), ClassSource("synapse", "synapses")),
        voxel_size_zyx_nm=(10.0, 10.0, 10.0),
        working_zyx_nm=(10.0, 10.0, 10.0),
        min_object_voxels=64,
        base=True,
        train_parts=tuple(PhantomPart(seed, (50, 448, 448)) for seed in (701, 702, 703)),
        choose_part=PhantomPart(711, (24, 448, 448)),
        report_part=PhantomPart(721, (64, 512, 512)),
    ),
    "vnc": SetSpec(
        title="Drosophila VNC",
        classes=(
            ClassSource("mitochondrion", "classes/0", 1),
            ClassSource("synapse", "classes/0", 2),
            ClassSource("glia", "classes/0", 3, objects=False),
        ),
        voxel_size_zyx_nm=(47.5, 4.6, 4.6),
        working_zyx_nm=(47.5, 9.2, 9.2),
        min_object_voxels=50,
        base=True,
        stored="../shared/data/drosophila_vnc_z00_15.zarr",
        train=(0, 10),
        choose=(10, 12),
        report=(12, 16),
    ),
}
"""Data sets by the name that rows carry."""

PHANTOM_FAULTS = {"missing_section_fraction": 0.02, "damaged_section_fraction": 0.05}
"""How bad the phantom's microscope is, beyond the generator's defaults; the truth stays where the image is blank."""


@dataclass(frozen=True)
class Part:
    """A volume whose slices [start, stop) are scored."""

    volume: TrainingVolume
    """Image and truth; the image may reach beyond the slices that are scored."""
    objects: tuple[npt.NDArray[np.unsignedinteger[Any]] | None, ...]
    """True objects of the scored slices per class; None where the components of the mask are the objects."""
    span: Span
    """Slices that are scored."""

    @property
    def truth_czyx(self) -> npt.NDArray[np.uint8]:
        """Truth of the scored slices."""
        return self.volume.labels_czyx[:, slice(*self.span)]


@dataclass(frozen=True)
class BenchSet:
    """A data set in memory."""

    spec: SetSpec
    """What it is."""
    training: tuple[TrainingVolume, ...]
    """What training is given: training labels by share, and the choose slices."""
    labelled: dict[str, tuple[int, ...]]
    """Labelled slices per training volume."""
    choose: Part
    """What chooses weights and thresholds."""
    report: Part
    """What is scored."""


def describe_set(name: str) -> dict[str, Any]:
    """Everything about a set that changes a row's result, as plain values."""
    return {**asdict(SETS[name]), "faults": PHANTOM_FAULTS, "context_slices": CONTEXT_SLICES}


def load_set(name: str, percent: int, cache: Path) -> BenchSet:
    """Read or draw a set.

    Args:
        name: of the set.
        percent: share of the training slices that keep their labels.
        cache: folder where drawn phantoms are kept.

    Raises:
        FileNotFoundError: the data are not on this machine.
    """
    spec = SETS[name]
    return _load_phantom(spec, percent, cache) if spec.stored is None else _load_stored(spec, percent)


def _load_stored(spec: SetSpec, percent: int) -> BenchSet:
    from sam4em_core.training.data import TrainingVolume, grey_range

    image, labels = _read_stored(spec)
    # The grey range comes from the slices that training may see.
    grey = grey_range(image[: spec.choose[1]])
    chosen = labelled_slices(*spec.train, percent)
    seen = slice(0, spec.choose[1])
    training = TrainingVolume(
        "training",
        image[seen],
        _with_share(labels[:, seen], spec.train, chosen),
        spec.voxel_size_zyx_nm,
        train=spec.train,
        choose=spec.choose,
        grey_range=grey,
    )
    whole = TrainingVolume("whole", image, labels, spec.voxel_size_zyx_nm, grey_range=grey)
    nothing = (None,) * len(spec.classes)
    choose, report = Part(whole, nothing, spec.choose), Part(whole, nothing, spec.report)
    return BenchSet(spec, (training,), {"training": chosen}, choose, report)


def _read_stored(spec: SetSpec) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    from pipeline.geometry import Box
    from pipeline.storage import StorageOptions, open_volume

    folder = REPOSITORY / str(spec.stored)
    if not folder.exists():
        raise FileNotFoundError(f"the set {spec.title} is not here: {folder} does not exist")
    image = open_volume(str(folder / "raw/0"), StorageOptions())
    box = Box.of_shape(image.info.shape)
    layers = {
        layer: open_volume(str(folder / layer), StorageOptions(), kind="labels").read(box)
        for layer in {item.layer for item in spec.classes}
    }
    labels = [_is_class(layers[item.layer], item.value) for item in spec.classes]
    return image.read(box), np.stack(labels).astype(np.uint8)


def _is_class(labels: npt.NDArray[Any], value: int | None) -> npt.NDArray[np.bool_]:
    return np.asarray(labels != 0 if value is None else labels == value)


def _load_phantom(spec: SetSpec, percent: int, cache: Path) -> BenchSet:
    if spec.choose_part is None or spec.report_part is None:
        raise ValueError(f"the set {spec.title} has neither files nor all phantoms")
    training, labelled = [], {}
    for part in spec.train_parts:
        depth = part.shape_zyx[0]
        chosen = labelled_slices(0, depth, percent)
        volume, _ = _phantom_volume(spec, part, cache, train=(0, depth), labelled=chosen)
        training.append(volume)
        labelled[volume.name] = chosen
    choose_span, report_span = (0, spec.choose_part.shape_zyx[0]), (0, spec.report_part.shape_zyx[0])
    choosing, choosing_objects = _phantom_volume(spec, spec.choose_part, cache, choose=choose_span)
    scored, scored_objects = _phantom_volume(spec, spec.report_part, cache)
    choose, report = Part(choosing, choosing_objects, choose_span), Part(scored, scored_objects, report_span)
    return BenchSet(spec, (*training, choosing), labelled, choose, report)


def _phantom_volume(
    spec: SetSpec,
    part: PhantomPart,
    cache: Path,
    *,
    train: Span | None = None,
    choose: Span | None = None,
    labelled: tuple[int, ...] | None = None,
) -> tuple[TrainingVolume, tuple[npt.NDArray[np.unsignedinteger[Any]] | None, ...]]:
    from sam4em_core.training.data import TrainingVolume

    layers = _drawn(spec, part, cache)
    objects = tuple(layers[item.layer] if item.objects else None for item in spec.classes)
    labels = np.stack([_is_class(layers[item.layer], item.value) for item in spec.classes]).astype(np.uint8)
    if train is not None and labelled is not None:
        labels = _with_share(labels, train, labelled)
    volume = TrainingVolume(
        f"phantom-{part.seed}", layers["image"], labels, spec.voxel_size_zyx_nm, train=train, choose=choose
    )
    return volume, objects


def _drawn(spec: SetSpec, part: PhantomPart, cache: Path) -> dict[str, npt.NDArray[Any]]:
    """Draw a phantom, or read it where it was drawn before."""
    from pipeline.phantom import PhantomSpec, render
    from sam4em_core.training.state import write_whole

    wanted = ["image", *sorted({item.layer for item in spec.classes})]
    phantom = PhantomSpec(part.seed, part.shape_zyx, spec.voxel_size_zyx_nm, **PHANTOM_FAULTS)
    text = json.dumps({**asdict(phantom), "layers": wanted}, sort_keys=True)
    path = cache / f"phantom-{part.seed}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        block = render(phantom, phantom.box, want=wanted)
        arrays = {name: getattr(block, f"{name}_zyx") for name in wanted}
        # Rows that run side by side may draw the same phantom: each under a name of its own, the last one stays.
        own = path.with_name(f"{os.getpid()}-{path.name}")
        write_whole(own, lambda place: _write_arrays(place, arrays))
        own.replace(path)
    with np.load(path) as stored:
        return {name: stored[name] for name in wanted}


def _write_arrays(path: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _with_share(labels_czyx: npt.NDArray[np.uint8], train: Span, labelled: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Take the labels away from the training slices that are not listed."""
    result = labels_czyx.copy()
    unknown = np.zeros(result.shape[1], dtype=bool)
    unknown[slice(*train)] = True
    unknown[list(labelled)] = False
    result[:, unknown] = UNLABELLED
    return result


def region_of(part: Part, working_zyx_nm: Nanometers, context_slices: int = CONTEXT_SLICES) -> ChooseRegion:
    """Bring the slices to be scored, and image around them, to the working lattice.

    Every scored slice is covered: where the volume ends inside a working slice, that slice is filled by what is there.

    Args:
        part: the slices.
        working_zyx_nm: voxel size of the lattice.
        context_slices: slices of that lattice on each side, where the volume has them.
    """
    from sam4em_core.training.data import grey_range
    from sam4em_core.training.resample import resample_float
    from sam4em_core.training.validate import ChooseRegion

    volume, source_nm = part.volume, part.volume.voxel_size_zyx_nm
    low, high = volume.grey_range or grey_range(volume.image_zyx)
    first = int(part.span[0] * source_nm[0] / working_zyx_nm[0] + 1e-6)
    last = math.ceil(part.span[1] * source_nm[0] / working_zyx_nm[0] - 1e-6)
    depth = math.ceil(volume.image_zyx.shape[0] * source_nm[0] / working_zyx_nm[0] - 1e-6)
    plane = [
        int(extent * have / want + 1e-6)
        for extent, have, want in zip(volume.image_zyx.shape[1:], source_nm[1:], working_zyx_nm[1:], strict=True)
    ]
    image = resample_float(volume.image_zyx, source_nm, working_zyx_nm, (depth, plane[0], plane[1]))
    start, stop = max(0, first - context_slices), min(depth, last + context_slices)
    return ChooseRegion(
        name=volume.name,
        image_zyx=np.clip((image[start:stop] - np.float32(low)) / np.float32(high - low), 0.0, 1.0),
        context_below=first - start,
        num_slices=last - first,
        truth_czyx=part.truth_czyx,
        source_zyx_nm=source_nm,
        working_zyx_nm=working_zyx_nm,
        lead_z_nm=part.span[0] * source_nm[0] - first * working_zyx_nm[0],
    )
