"""The places of a real run: its output volumes, and everything in its run directory."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CorruptData, OurError
from pipeline.geometry import BlockGrid, Box
from pipeline.ledger import UnitSum, read_document
from pipeline.run.prepare import storage_options
from pipeline.stages.context import TaskContext
from pipeline.stages.layout import (
    BLANKS,
    EDGES,
    EDGES_KEY,
    FACES,
    GROUPS,
    IDS_KEY,
    LUTS,
    SEAMS_KEY,
    SEGMENTS_KEY,
    SHAPE_RUN_FOLDERS,
    STATISTICS,
    collection_urls,
    output_array_name,
)
from pipeline.stages.plan import RunPlan
from pipeline.storage import (
    ImageSpec,
    ImageWriter,
    LabelVolumeSpec,
    LabelVolumeWriter,
    ObjectStore,
    StorageOptions,
    UnitRecord,
    checksum,
    label_writer,
)
from pipeline.storage.locations import SHAPE_FOLDERS, shape_url

OUTPUT_KIND: Final = "output"
COLLECTION_KIND: Final = "collection"
PREDICTION_KIND: Final = "prediction"
RUN_KIND: Final = "run"
RUN_FOLDERS: Final = ("scratch", *SHAPE_RUN_FOLDERS, FACES, STATISTICS, EDGES, GROUPS, LUTS, BLANKS)
RUN_FILES: Final = (IDS_KEY,)
# A file, or a folder of parts where the run has several groups of blocks.
RUN_TABLES: Final = (SEGMENTS_KEY, EDGES_KEY, SEAMS_KEY)


def list_outputs(plan: RunPlan) -> tuple[dict[str, Any], ...]:
    """List what a run creates, for its manifest: enough to delete it without the plan."""
    volumes = [
        {"kind": OUTPUT_KIND, "url": output.url, "format": output.format, "spec": asdict(output.spec)}
        for output in plan.outputs
    ]
    collections = [{"kind": COLLECTION_KIND, "url": url} for url in collection_urls(plan)]
    kept = [{"kind": PREDICTION_KIND, "url": item.spec.url, "spec": asdict(item.spec)} for item in plan.predictions]
    return (*volumes, *collections, *kept, {"kind": RUN_KIND, "url": plan.run_url})


class RunPlaces:
    """See `Places`."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._options = storage_options(plan.config.storage)
        self._context = TaskContext(plan, options=self._options)
        self._arrays = {
            output_array_name(number, mip): (writer, mip)
            for number, writer in enumerate(self._context.writers)
            for mip in range(writer.spec.num_mips)
        }

    def num_units(self) -> Mapping[str, int]:
        """See `Places.num_units`."""
        return {name: len(_unit_grid(writer, mip)) for name, (writer, mip) in self._arrays.items()}

    def check_unit(self, unit: UnitSum) -> None:
        """See `Places.check_unit`.

        Raises:
            CorruptData: the unit is not what the journal says, or holds an id that is not in the instance table.
        """
        if unit.volume not in self._arrays:
            raise OurError(f"the journal names array {unit.volume!r}, which the plan does not have")
        writer, mip = self._arrays[unit.volume]
        grid = _unit_grid(writer, mip)
        box = grid.box(grid.index(unit.position))
        labels_zyx = writer.read(mip, box)
        if checksum(labels_zyx) != unit.crc32c:
            writer.verify_unit(mip, UnitRecord(unit.position, unit.crc32c))
        first, last = self._ids[writer.spec.class_name]
        strangers = stray_ids(labels_zyx, first, last)
        if strangers.size:
            raise CorruptData(
                f"write unit {unit.position} (box {box}) of {unit.volume} holds {strangers.size} ids that its "
                f"class does not have, the first is {strangers[0]}; {IDS_KEY} gives it {first} to {last}"
            )

    def mark(self, *, complete: bool) -> None:
        """See `Places.mark`."""
        for writer in self._context.writers:
            writer.mark(complete=complete)

    def delete_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """See `Places.delete_outputs`."""
        for output in outputs:
            if output["kind"] == OUTPUT_KIND:
                for folder in SHAPE_FOLDERS:
                    _delete_shapes(shape_url(output["url"], output["format"], folder), self._options)
                label_writer(output["format"], spec_from(output["spec"]), self._options).delete()
            elif output["kind"] == PREDICTION_KIND:
                spec = ImageSpec(**{name: _as_tuples(value) for name, value in output["spec"].items()})
                ImageWriter(spec, self._options).delete()
            elif output["kind"] == COLLECTION_KIND:
                ObjectStore(output["url"], self._options).delete("zarr.json")
            else:
                _delete_run_files(output["url"], self._options)

    def delete_intermediates(self) -> None:
        """See `Places.delete_intermediates`."""
        self._context.delete_scratch()

    @cached_property
    def _ids(self) -> dict[str, tuple[int, int]]:
        """First and last id of every class; ids are dealt without gaps."""
        ranges = read_document(self._context.objects, IDS_KEY)
        if ranges is None:
            raise CorruptData(f"checking ids: {IDS_KEY} of the run is gone; resolve makes it: --restart")
        return {
            name: (int(given["first_id"]), int(given["first_id"]) + int(given["num_ids"]) - 1)
            for name, given in ranges.items()
        }


def stray_ids(labels_zyx: NDArray[np.uint64], first: int, last: int) -> NDArray[np.uint64]:
    """Give the ids in `labels_zyx` outside first..last, sorted; background is no id."""
    is_stray = (labels_zyx != 0) & ((labels_zyx < np.uint64(first)) | (labels_zyx > np.uint64(last)))
    return np.unique(labels_zyx[is_stray])


def spec_from(document: Mapping[str, Any]) -> LabelVolumeSpec:
    """Read the spec of an output from a manifest: JSON has lists where specs have tuples."""
    return LabelVolumeSpec(**{name: _as_tuples(value) for name, value in document.items()})


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list | tuple) else value


def _unit_grid(writer: LabelVolumeWriter, mip: int) -> BlockGrid:
    return BlockGrid(Box.of_shape(writer.spec.shape(mip)), writer.write_unit_zyx(mip))


def _delete_shapes(url: str, options: StorageOptions) -> None:
    # cloud-volume takes a second to import: only where it is needed.
    importlib.import_module("pipeline.storage.shapes").delete_shapes(url, options)


def _delete_run_files(url: str, options: StorageOptions) -> None:
    store = ObjectStore(url, options)
    for folder in RUN_FOLDERS:
        store.delete_prefix(folder)
    for file in RUN_FILES:
        store.delete(file)
    for table in RUN_TABLES:
        store.delete_prefix(table)
