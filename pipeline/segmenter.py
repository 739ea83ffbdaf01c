"""The seam between the pipeline and the models: the only door to `sam4em_core` at inference.

    describe_segmenter(config, ...)   what a model needs, before any worker or accelerator exists
    load_segmenter(config, ...)       the model itself, once per worker

A segmenter turns grey values into probabilities; how probabilities become objects is the label stage's affair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.config.read import digest_of_section
from pipeline.config.schema import Sam4emSegmenter, ThresholdSegmenter
from pipeline.errors import (
    ConfigError,
    DeviceLost,
    DeviceOutOfMemory,
    OurError,
    PlanError,
    Sam4emError,
    WeightsError,
)
from pipeline.geometry import Box, Spacing, Vector

if TYPE_CHECKING:
    from sam4em_core.header import CheckpointHeader
    from sam4em_core.segmenter import BlockPredictor

SegmenterConfig = ThresholdSegmenter | Sam4emSegmenter

# A Gaussian beyond four sigma weighs less than 1e-4 of its center.
_GAUSSIAN_REACH_SIGMAS = 4.0


@dataclass(frozen=True)
class SegmenterIdentity:
    """What the result depends on; stands in the manifest."""

    name: str
    """Name of the model."""
    weights_sha256: str
    """Digest of the weights file; empty where there are no weights."""
    config_digest: str
    """Digest of the segmenter's section of the config."""


@dataclass(frozen=True)
class SegmenterDemand:
    """What a segmenter needs, stated before it runs."""

    identity: SegmenterIdentity
    """What the result depends on."""
    class_names: tuple[str, ...]
    """Classes in channel order."""
    thresholds: tuple[float, ...]
    """Probability from which a voxel is inside, per class."""
    working_voxel_size_nm: Spacing | None
    """Voxel size the model works at; None: any."""
    accepted_voxel_size_nm: tuple[float, float] | None
    """Smallest and largest source voxel size (any axis) the model was made for; None: any."""
    grey_fractions: tuple[float, float] | None
    """Fractions of the volume's voxels below the grey values that map to 0 and 1; None: the dtype's range."""
    unit_zyx: Callable[[Vector], Vector]
    """Domain shape -> a block core is best a multiple of this many working voxels: whole windows, tile strides."""
    takes_raw_grey: bool
    """`predict` wants grey values as they are stored; else resampled to the working voxel size, in [0, 1]."""
    is_fused: bool
    """Cheap enough to be computed again in every halo: then the label stage calls it and nothing is stored."""
    context: Callable[[Box, Box, Box], Box]
    """(core, bounds, domain) -> working voxels that `predict` reads."""
    projected_bytes: Callable[[Vector, Vector], tuple[int, int]]
    """(core shape, domain shape) -> host and device bytes that `predict` uses at most, weights included."""
    model_voxels: Callable[[Box, Box, Box], int]
    """(core, bounds, domain) -> voxels that pass through the model."""
    batches: Callable[[Vector], tuple[int, ...]] = lambda domain: (1,)
    """Domain shape -> tiles per model call: as planned, then what to try, in order, where the device's memory is full.
    Anything but the first changes rounding."""
    sdf_tau_nm: float | None = None
    """Where the signed distances are cut off that `predict` gives behind the classes, one per class; None: it gives
    none."""


class Segmenter(Protocol):
    """A loaded model."""

    def predict(
        self, image_zyx: NDArray[Any], image_box: Box, core: Box, bounds: Box, domain: Box, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """Give the probabilities of one block; pure in effect.

        Args:
            image_zyx: grey values of `image_box` on the working lattice: as stored (uint8, uint16) where
                `SegmenterDemand.takes_raw_grey`, else float32 in [0, 1].
            image_box: at least what `SegmenterDemand.context` asked for.
            core: the voxels wanted.
            bounds: the voxels where image data exists.
            domain: the whole region that is segmented; the model's grids are anchored at its start.
            batch: one of `SegmenterDemand.batches`; default: the first.

        Returns:
            uint8 of shape (channels, z, y, x): per class its probability, 255 is 1; where `SegmenterDemand.sdf_tau_nm`
            is given, then per class its signed distance, 0 is -tau, 255 is tau, from 128 on inside.

        Raises:
            DeviceOutOfMemory: the accelerator's memory is full.
            DeviceLost: the accelerator went away.
        """


def describe_segmenter(config: SegmenterConfig, source_voxel_size_nm: Spacing) -> SegmenterDemand:
    """State what a segmenter needs, without loading it.

    Args:
        config: the segmenter's section.
        source_voxel_size_nm: voxel size of the image.

    Raises:
        WeightsError: the model file is missing or unreadable.
    """
    if isinstance(config, ThresholdSegmenter):
        return _describe_threshold(config, source_voxel_size_nm)
    return _describe_sam4em(config)


def require_accepted(demand: SegmenterDemand, config: SegmenterConfig, source_voxel_size_nm: Spacing) -> None:
    """Refuse an image that the model was not made for, unless the config insists.

    Raises:
        PlanError: the voxel size of the level that is read lies outside the accepted range.
    """
    if demand.accepted_voxel_size_nm is None or isinstance(config, ThresholdSegmenter) or config.force_voxel_size:
        return
    low, high = demand.accepted_voxel_size_nm
    if not all(low <= size <= high for size in source_voxel_size_nm):
        raise PlanError(
            f"model {config.model!r} was made for voxels of {low:g} to {high:g} nm, the image has "
            f"{source_voxel_size_nm} nm (z, y, x); choose another model or pyramid level, or --force-voxel-size"
        )


def load_segmenter(config: SegmenterConfig, source_voxel_size_nm: Spacing) -> Segmenter:
    """Load a segmenter; called once per worker.

    Raises:
        WeightsError: the weights are unreadable or belong to another architecture.
    """
    if isinstance(config, ThresholdSegmenter):
        return _Threshold(config, source_voxel_size_nm)
    return _load_sam4em(config)


def _describe_threshold(config: ThresholdSegmenter, source_voxel_size_nm: Spacing) -> SegmenterDemand:
    halo = _smoothing_halo(config.smoothing_nm, source_voxel_size_nm)

    def projected_bytes(core: Vector, domain: Vector) -> tuple[int, int]:
        voxels = math.prod(extent + 2 * grow for extent, grow in zip(core, halo, strict=True))
        # The image, its float copy while smoothing, and the result.
        return voxels * (1 + 4 * 2 * (config.smoothing_nm > 0) + 1), 0

    return SegmenterDemand(
        identity=SegmenterIdentity("threshold", "", digest_of_section(config)),
        class_names=(config.class_name,),
        thresholds=(0.5,),
        working_voxel_size_nm=None,
        accepted_voxel_size_nm=None,
        grey_fractions=None,
        unit_zyx=lambda domain: (1, 1, 1),
        takes_raw_grey=True,
        is_fused=True,
        context=lambda core, bounds, domain: core.grown(halo).intersection(bounds),
        projected_bytes=projected_bytes,
        model_voxels=lambda core, bounds, domain: core.num_voxels,
    )


def _smoothing_halo(smoothing_nm: float, voxel_size_nm: Spacing) -> Vector:
    reach_nm = _GAUSSIAN_REACH_SIGMAS * smoothing_nm
    return (
        math.ceil(reach_nm / voxel_size_nm[0]),
        math.ceil(reach_nm / voxel_size_nm[1]),
        math.ceil(reach_nm / voxel_size_nm[2]),
    )


class _Threshold:
    """Grey values as probabilities: bright or dark, smoothed or not."""

    def __init__(self, config: ThresholdSegmenter, voxel_size_nm: Spacing) -> None:
        self._is_dark = config.foreground == "dark"
        self._halo = _smoothing_halo(config.smoothing_nm, voxel_size_nm)
        self._sigma_voxels = tuple(config.smoothing_nm / size for size in voxel_size_nm)

    def predict(
        self, image_zyx: NDArray[Any], image_box: Box, core: Box, bounds: Box, domain: Box, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """See `Segmenter.predict`."""
        grey = (image_zyx >> 8).astype(np.uint8) if image_zyx.dtype == np.uint16 else image_zyx
        if max(self._halo) > 0:
            smooth = ndimage.gaussian_filter(
                grey.astype(np.float32), self._sigma_voxels, mode="nearest", radius=self._halo
            )
            grey = np.rint(smooth).astype(np.uint8)
        inside = grey[core.relative_to(image_box.start).slices]
        return (np.uint8(255) - inside if self._is_dark else inside)[None]


def count_gpus() -> int:
    """Count the GPUs that a model could use in this process; imports torch, makes no CUDA context."""
    from sam4em_core.segmenter import count_gpus as count  # noqa: PLC0415

    return count()


def shipped_models() -> list[str]:
    """Name the models that come with the package."""
    return sorted(path.stem for path in _models_folder().glob("*.safetensors"))


def _models_folder() -> Path:
    return Path(str(resources.files("sam4em_core"))) / "models"


def model_path(name_or_path: str) -> Path:
    """Find a model: a shipped one by name, else a file.

    Raises:
        WeightsError: there is neither such a model nor such a file.
    """
    folder, names = _models_folder(), shipped_models()
    if name_or_path in names:
        return folder / f"{name_or_path}.safetensors"
    path = Path(name_or_path)
    if not path.is_file():
        raise WeightsError(
            f"loading model {name_or_path!r}: no shipped model has this name and no file is there; "
            f"shipped models: {', '.join(names) or 'none'}"
        )
    return path


def model_header(name_or_path: str) -> CheckpointHeader:
    """Read what a model says about itself, without loading it.

    Raises:
        WeightsError: there is no such model, or its file is unreadable.
    """
    from sam4em_core import header  # noqa: PLC0415

    path = model_path(name_or_path)
    with core_errors(f"reading model {name_or_path!r}"):
        return header.read_checkpoint_header(path)


def _describe_sam4em(config: Sam4emSegmenter) -> SegmenterDemand:
    from sam4em_core import header as headers  # noqa: PLC0415
    from sam4em_core import tiles  # noqa: PLC0415

    header = model_header(config.model)
    batch = config.batch_tiles or header.batch_tiles
    views = 4 if config.test_time_flips else 1
    grey = header.normalization
    with core_errors(f"reading model {config.model!r}"):
        identity = SegmenterIdentity(
            header.name, headers.sha256_of(model_path(config.model)), digest_of_section(config)
        )
    return SegmenterDemand(
        identity=identity,
        class_names=header.classes,
        thresholds=header.thresholds,
        working_voxel_size_nm=header.working_voxel_size_zyx_nm,
        accepted_voxel_size_nm=header.accepted_voxel_size_nm,
        grey_fractions=(grey.low / 100, grey.high / 100) if grey.kind == "percentile" else None,
        unit_zyx=lambda domain: tiles.unit_of(domain, header),
        takes_raw_grey=False,
        is_fused=False,
        context=lambda core, bounds, domain: Box(
            *tiles.context_of(core.start, core.stop, (bounds.start, bounds.stop), domain.shape, header)
        ),
        projected_bytes=lambda core, domain: tiles.projected_bytes(core, domain, header, batch),
        model_voxels=lambda core, bounds, domain: (
            views * tiles.model_voxels(core.start, core.stop, (bounds.start, bounds.stop), domain.shape, header, batch)
        ),
        batches=lambda domain: halved(tiles.tiles_per_call(tiles.tile_axes(domain, header), batch)),
        sdf_tau_nm=None if header.model.unet is None else header.model.unet.tau_nm,
    )


def halved(batch: int) -> tuple[int, ...]:
    """Give a batch and its halves, down to one."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return tuple(sizes)


def _load_sam4em(config: Sam4emSegmenter) -> Segmenter:
    from sam4em_core.segmenter import BlockPredictor  # noqa: PLC0415

    with core_errors(f"loading model {config.model!r}"):
        predictor = BlockPredictor(
            model_path(config.model),
            device=config.device,
            threads=config.threads,
            batch=config.batch_tiles,
            flips=config.test_time_flips,
        )
    return _Sam4em(predictor)


class _Sam4em:
    """The numpy door of the model core, with our boxes and our errors."""

    def __init__(self, predictor: BlockPredictor) -> None:
        self._predictor = predictor

    def predict(
        self, image_zyx: NDArray[Any], image_box: Box, core: Box, bounds: Box, domain: Box, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """See `Segmenter.predict`."""
        with core_errors(f"segmenting working voxels {core}"):
            return self._predictor.predict(
                image_zyx, image_box.start, (bounds.start, bounds.stop), domain.shape, core.start, core.stop, batch
            )


@contextmanager
def core_errors(doing: str) -> Iterator[None]:
    """Turn the core's errors into ours; `doing` says what was being done.

    Raises:
        Sam4emError: the family that the core's error belongs to.
    """
    from sam4em_core import errors as core  # noqa: PLC0415

    families: list[tuple[type[core.CoreError], type[Sam4emError]]] = [
        (core.CheckpointError, WeightsError),
        (core.DeviceMemoryError, DeviceOutOfMemory),
        (core.DeviceLostError, DeviceLost),
        (core.CoreConfigError, ConfigError),
        (core.NonFiniteError, WeightsError),
        (core.CoreError, OurError),
    ]
    try:
        yield
    except core.CoreError as error:
        family = next(ours for theirs, ours in families if isinstance(error, theirs))
        raise family(f"{doing}: {error}") from error
