"""Networks of `sam4em_core` as segmenters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.config.read import digest_of_section
from pipeline.config.schema import Sam4emSegmenter
from pipeline.geometry import Box
from pipeline.segmenter.demand import BlockImage, CoarseImage, Segmenter, SegmenterDemand, SegmenterIdentity
from pipeline.segmenter.models import core_errors, model_header, model_path

if TYPE_CHECKING:
    from sam4em_core.lattice import LatticeGatherer, LatticeImage
    from sam4em_core.segmenter import BlockPredictor


def describe_network(config: Sam4emSegmenter) -> SegmenterDemand:
    """State what a network needs, from the head of its file.

    Raises:
        WeightsError: the model file is missing or unreadable.
    """
    from sam4em_core import footprint, tiles  # noqa: PLC0415
    from sam4em_core import header as headers  # noqa: PLC0415

    header = model_header(config.model)
    batch = config.batch_tiles or header.batch_tiles
    views = 4 if config.test_time_flips else 1
    grey = header.normalization

    def coarse(core: Box, bounds: Box, domain: Box) -> CoarseImage:
        return _UnetImage(tiles.gatherer_of(core.start, core.stop, (bounds.start, bounds.stop), domain.shape, header))

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
        projected_bytes=lambda core, domain: footprint.projected_bytes(core, domain, header, batch),
        model_voxels=lambda core, bounds, domain: tiles.model_voxels(
            core.start, core.stop, (bounds.start, bounds.stop), domain.shape, header, batch, views
        ),
        batches=lambda domain: halved(tiles.tiles_per_call(tiles.tile_axes(domain, header), batch)),
        coarse=coarse if header.model.needs_field else None,
        sdf_tau_nm=None if header.model.unet is None else header.model.unet.tau_nm,
    )


def halved(batch: int) -> tuple[int, ...]:
    """Give a batch and its halves, down to one."""
    sizes = [batch]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    return tuple(sizes)


def load_network(config: Sam4emSegmenter) -> Segmenter:
    """Load a network onto its device.

    Raises:
        WeightsError: the weights are unreadable or belong to another architecture.
    """
    from sam4em_core.segmenter import BlockPredictor  # noqa: PLC0415

    with core_errors(f"loading model {config.model!r}"):
        predictor = BlockPredictor(
            model_path(config.model),
            device=config.device,
            threads=config.threads,
            batch=config.batch_tiles,
            flips=config.test_time_flips,
        )
    return _Network(predictor)


class _Network:
    """The numpy door of the model core, with our boxes and our errors."""

    def __init__(self, predictor: BlockPredictor) -> None:
        self._predictor = predictor

    def predict(
        self, image: BlockImage, core: Box, bounds: Box, domain: Box, *, batch: int | None = None
    ) -> NDArray[np.uint8]:
        """See `Segmenter.predict`."""
        coarse = image.coarse.image() if isinstance(image.coarse, _UnetImage) else None
        with core_errors(f"segmenting working voxels {core}"):
            return self._predictor.predict(
                image.values_zyx,
                image.box.start,
                (bounds.start, bounds.stop),
                domain.shape,
                core.start,
                core.stop,
                batch,
                coarse,
            )


class _UnetImage:
    """A gatherer of the model core, with our boxes and our errors."""

    def __init__(self, gatherer: LatticeGatherer) -> None:
        self._gatherer = gatherer
        self.box = Box(*gatherer.box)
        self.slab_slices = gatherer.slab_slices

    def add(self, values_zyx: NDArray[np.float32]) -> None:
        """See `CoarseImage.add`."""
        with core_errors(f"gathering working voxels {self.box}"):
            self._gatherer.add(values_zyx)

    def image(self) -> LatticeImage:
        """Give what was gathered."""
        with core_errors(f"gathering working voxels {self.box}"):
            return self._gatherer.image()
