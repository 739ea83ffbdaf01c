"""The tables that a run leaves for its user, as parquet: the segments, and every pair of labels that was judged."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.labels.arrays import SegmentArray
from pipeline.labels.merges import ScoredEdges
from pipeline.labels.overlaps import OverlapTable
from pipeline.labels.statistics import LabelTable
from pipeline.stages.plan import UINT8_ONE, RunPlan

ROW_GROUP_ROWS = 2**18
"""Rows of one row group: 30 MB of columns at most."""

_AXES = ("z", "y", "x")

SEGMENT_SCHEMA = pa.schema(
    [
        ("id", pa.uint64()),
        ("class", pa.dictionary(pa.int16(), pa.string())),
        ("voxels", pa.uint64()),
        ("volume_nm3", pa.float64()),
        *((f"{axis}{end}", pa.int64()) for end in (0, 1) for axis in _AXES),
        *((f"centroid_{axis}_nm", pa.float64()) for axis in _AXES),
        ("mean_probability", pa.float32()),
        ("touches_border", pa.bool_()),
        ("num_blocks", pa.int64()),
    ]
)
"""Columns of `segments.parquet`: boxes in output voxels of the full volume, centroids in nm from its origin."""

EDGE_SCHEMA = pa.schema(
    [
        ("class", pa.dictionary(pa.int16(), pa.string())),
        ("lower_block", pa.int64()),
        ("upper_block", pa.int64()),
        ("axis", pa.int8()),
        ("lower_label", pa.uint64()),
        ("upper_label", pa.uint64()),
        ("num_voxels", pa.uint64()),
        ("lower_voxels", pa.uint64()),
        ("upper_voxels", pa.uint64()),
        ("score", pa.float32()),
        ("accepted", pa.bool_()),
        ("near_miss", pa.bool_()),
    ]
)
"""Columns of `edges.parquet`: the score is the intersection over union within the slab."""


class ParquetBuffer:
    """Collects rows and writes them in row groups."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = 0

    def __enter__(self) -> Self:
        """Nothing to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is pending and the footer."""
        self._flush()
        self._writer.close()

    def finish(self) -> bytes:
        """Give the file; after the `with` block."""
        return bytes(self._sink.getvalue())

    def add_columns(self, columns: list[Any], num_rows: int) -> None:
        """Add rows, one array per column of the schema."""
        if num_rows == 0:
            return
        self._pending.append(pa.record_batch(columns, schema=self._schema))
        self._num_pending += num_rows
        if self._num_pending >= ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending).unify_dictionaries()
            self._writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        self._pending, self._num_pending = [], 0


def repeated(name: str, num_rows: int) -> pa.DictionaryArray:
    """Make a column that says the same in every row."""
    return pa.DictionaryArray.from_arrays(np.zeros(num_rows, np.int16), [name])


class SegmentTableWriter(ParquetBuffer):
    """Writes `segments.parquet`."""

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(SEGMENT_SCHEMA)
        self._plan = plan

    def add(self, class_name: str, ids: SegmentArray, rows: LabelTable, num_blocks: NDArray[np.int64]) -> None:
        """Add the objects of one class, in the order of their ids."""
        domain, size_nm = self._plan.output_domain, np.array(self._plan.output_voxel_size_nm)
        offset = np.array(self._plan.output_offset_zyx, np.int64)
        touches = (rows.box_start <= np.array(domain.start)) | (rows.box_stop >= np.array(domain.stop))
        voxels = rows.voxels.astype(np.float64)
        # A voxel's center lies half a voxel beyond its index.
        centroid_nm = (rows.coordinate_sum / voxels[:, None] + offset + 0.5) * size_nm
        start, stop = rows.box_start + offset, rows.box_stop + offset
        columns = [
            ids,
            repeated(class_name, len(ids)),
            rows.voxels,
            voxels * float(np.prod(size_nm)),
            *(np.ascontiguousarray(start[:, axis]) for axis in range(3)),
            *(np.ascontiguousarray(stop[:, axis]) for axis in range(3)),
            *(np.ascontiguousarray(centroid_nm[:, axis]) for axis in range(3)),
            (rows.probability_sum / voxels / UINT8_ONE).astype(np.float32),
            touches.any(axis=1),
            num_blocks,
        ]
        self.add_columns(columns, len(ids))


class EdgeTableWriter(ParquetBuffer):
    """Writes `edges.parquet`."""

    def __init__(self) -> None:
        super().__init__(EDGE_SCHEMA)

    def add(self, class_name: str, lower: int, upper: int, axis: int, table: OverlapTable, scored: ScoredEdges) -> None:
        """Add the pairs of one face between blocks `lower` and `upper`."""
        num_rows = len(table.lower)
        columns = [
            repeated(class_name, num_rows),
            np.full(num_rows, lower, np.int64),
            np.full(num_rows, upper, np.int64),
            np.full(num_rows, axis, np.int8),
            *table,
            *scored,
        ]
        self.add_columns(columns, num_rows)
