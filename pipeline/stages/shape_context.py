"""What a task that makes shapes works with on its worker."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.labels.arrays import SegmentArray
from pipeline.stages.shape_plan import RowGroup, ShapedVolume, ShapePlan
from pipeline.storage import LabelVolumeWriter, ObjectStore, StorageOptions, label_writer
from pipeline.storage.faults import store_faults

_COLUMNS: Final = ("id", "voxels", "z0", "y0", "x0", "z1", "y1", "x1")


class ShapeContext:
    """The doors to everything outside such a task; shared by the threads of one worker."""

    def __init__(self, plan: ShapePlan, options: StorageOptions) -> None:
        """Keep what is given; opens nothing."""
        self._plan = plan
        self.options = options

    @cached_property
    def objects(self) -> ObjectStore:
        """Own directory."""
        return ObjectStore(self._plan.url, self.options)

    @cached_property
    def kept(self) -> ObjectStore:
        """Directory of the run."""
        return ObjectStore(self._plan.run_url, self.options)

    @cached_property
    def volumes(self) -> tuple[LabelVolumeWriter, ...]:
        """The label volumes; they are only read."""
        return tuple(label_writer(volume.format, volume.spec, self.options) for volume in self._plan.volumes)

    @cached_property
    def chosen(self) -> SegmentArray | None:
        """The ids that the user named, ascending; None: all."""
        ids = self._plan.section.ids
        return None if ids is None else np.unique(np.array(ids, np.uint64))

    def rows(self, volume: ShapedVolume, first: int, last: int) -> pa.Table:
        """Read the rows of the instance table of the ids first..last of a volume: id, voxels and bounding box.

        Raises:
            WorldError: the table is gone or damaged.
        """
        groups = [group for group in volume.rows if group.first_id <= last and group.last_id >= first]
        tables = [_of_range(self._row_group(group), first, last) for group in groups]
        return pa.concat_tables([pa.table({name: [] for name in _COLUMNS}).cast(_schema()), *tables])

    def _row_group(self, group: RowGroup) -> pa.Table:
        with store_faults(f"reading {group.key} of the run"), self.kept.open(group.key) as file:
            table = pq.ParquetFile(file).read_row_group(group.number, columns=list(_COLUMNS))
        return table.cast(_schema())


def list_row_groups(store: ObjectStore, keys: Iterator[str]) -> list[RowGroup]:
    """List the row groups of the instance table from the footers of its parts.

    Raises:
        VolumeNotFound: a part is missing.
        WorldError: the store failed.
    """
    groups = []
    for key in keys:
        with store_faults(f"reading {key} of the run"), store.open(key) as file:
            metadata = pq.read_metadata(file)
        for number in range(metadata.num_row_groups):
            statistics = metadata.row_group(number).column(0).statistics
            groups.append(RowGroup(key, number, int(statistics.min), int(statistics.max)))
    return groups


def _schema() -> pa.Schema:
    return pa.schema([("id", pa.uint64()), ("voxels", pa.uint64()), *((name, pa.int64()) for name in _COLUMNS[2:])])


def _of_range(table: pa.Table, first: int, last: int) -> pa.Table:
    ids: NDArray[np.uint64] = table["id"].to_numpy()
    return table.filter(pa.array((ids >= np.uint64(first)) & (ids <= np.uint64(last))))
