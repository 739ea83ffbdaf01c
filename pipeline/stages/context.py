"""What a task works with on its worker: volumes, scratch, objects, the model. Opened when first asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

from pipeline.config.schema import ImageSection
from pipeline.errors import ConfigError, OurError
from pipeline.segmenter import Segmenter, SegmenterDemand
from pipeline.stages import layout
from pipeline.stages.orders import OrderBook
from pipeline.stages.plan import RunPlan
from pipeline.storage import (
    ImageWriter,
    LabelVolumeWriter,
    MaskVolume,
    ObjectStore,
    ScratchArray,
    StorageOptions,
    Volume,
    label_writer,
    open_volume,
    write_collection,
)


def open_mask(section: ImageSection, options: StorageOptions) -> MaskVolume | None:
    """Open the mask that a config names; None where it names none.

    Raises:
        VolumeNotFound: nothing readable is there.
        VolumeFormatError: it holds no unsigned labels.
        ConfigError: it has no voxel size.
    """
    if section.mask_url is None:
        return None
    size = section.mask_voxel_size_zyx_nm
    volume = open_volume(section.mask_url, options, voxel_size_zyx_nm=size, kind="labels")
    if volume.info.voxel_size_zyx_nm is None:
        raise ConfigError(
            f"opening the mask {section.mask_url}: it does not say its voxel size; give --mask-voxel-size Z,Y,X in nm, "
            "or image.mask_voxel_size_zyx_nm in the config"
        )
    return MaskVolume(volume)


class TaskContext:
    """The doors to everything outside a task; shared by the threads of one worker."""

    def __init__(
        self,
        plan: RunPlan,
        *,
        options: StorageOptions,
        demand: SegmenterDemand | None = None,
        segmenter: Segmenter | None = None,
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        """Keep what is given; opens nothing.

        Args:
            plan: the run's plan.
            options: how stores are reached.
            demand: what the segmenter needs; with `segmenter`.
            segmenter: the loaded model; None on workers that run no model.
            device_lock: held around every call of the model, so that other threads read and write meanwhile.
        """
        self._plan = plan
        self._options = options
        self._demand = demand
        self._segmenter = segmenter
        self.device_lock: AbstractContextManager[object] = nullcontext() if device_lock is None else device_lock

    @property
    def options(self) -> StorageOptions:
        """How stores are reached."""
        return self._options

    @property
    def demand(self) -> SegmenterDemand:
        """What the segmenter needs.

        Raises:
            OurError: this worker was opened without it.
        """
        if self._demand is None:
            raise OurError("a task asked what the segmenter needs on a worker that was opened without it")
        return self._demand

    @property
    def segmenter(self) -> Segmenter:
        """The loaded model.

        Raises:
            OurError: this worker was opened without one.
        """
        if self._segmenter is None:
            raise OurError("a task asked for the segmenter on a worker that was opened without one")
        return self._segmenter

    @cached_property
    def image(self) -> Volume:
        """The image, at the level that is read."""
        section = self._plan.config.image
        size = section.voxel_size_zyx_nm
        return open_volume(section.url, self._options, voxel_size_zyx_nm=size, level=self._plan.image_level)

    @cached_property
    def mask(self) -> MaskVolume | None:
        """The mask, where the config names one."""
        return open_mask(self._plan.config.image, self._options)

    @cached_property
    def probabilities(self) -> ScratchArray:
        """Probabilities between predict and label."""
        return ScratchArray(layout.probabilities_spec(self._plan), self._options)

    @cached_property
    def labels(self) -> tuple[ScratchArray, ...]:
        """Local labels between label and relabel, one array per class."""
        return tuple(ScratchArray(layout.labels_spec(self._plan, rule), self._options) for rule in self._plan.classes)

    @cached_property
    def objects(self) -> ObjectStore:
        """Small objects of the run."""
        return ObjectStore(self._plan.run_url, self._options)

    @cached_property
    def kept(self) -> ObjectStore:
        """Small objects of the run that has the labels: this one, unless it stitches another run's labels again."""
        return ObjectStore(self._plan.labels_url, self._options)

    @cached_property
    def orders(self) -> OrderBook:
        """What a user has ordered for pairs of labels."""
        restitch = self._plan.restitch
        if restitch is None or restitch.orders_key is None:
            return OrderBook.empty()
        return OrderBook.unpacked(self.objects.get(restitch.orders_key), restitch.orders_key)

    @cached_property
    def writers(self) -> tuple[LabelVolumeWriter, ...]:
        """Writers of the outputs, in the plan's order."""
        return tuple(label_writer(output.format, output.spec, self._options) for output in self._plan.outputs)

    @cached_property
    def predictions(self) -> tuple[ImageWriter, ...]:
        """Writers of the predictions that are kept, in the plan's order."""
        return tuple(ImageWriter(kept.spec, self._options) for kept in self._plan.predictions)

    def create(self) -> None:
        """Make scratch arrays and outputs; does nothing where they are there already.

        Raises:
            ManifestMismatch: something else lies there.
            StoreReadOnly: writing is not permitted.
        """
        if self._plan.restitch is None:
            if self._plan.predict_grid is not None:
                self.probabilities.create()
            for array in self.labels:
                array.create()
            for writer in self.predictions:
                writer.create(replace=False)
        for url in layout.collection_urls(self._plan):
            write_collection(url, [rule.name for rule in self._plan.classes], self._options)
        for output in self.writers:
            output.create()

    def delete_scratch(self) -> None:
        """Remove the scratch arrays and the objects that only the stages needed; never those of another run."""
        if self._plan.restitch is None:
            if self._plan.predict_grid is not None:
                self.probabilities.delete()
            for array in self.labels:
                array.delete()
        for prefix in layout.INTERMEDIATE_PREFIXES:
            self.objects.delete_prefix(prefix)
