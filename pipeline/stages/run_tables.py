"""The tables that a run leaves for its user, as parquet: segments, every pair of labels that was judged, every face."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.geometry import Box
from pipeline.labels.arrays import SegmentArray
from pipeline.labels.merges import REASON_TEXTS, ScoredEdges
from pipeline.labels.overlaps import OverlapTable
from pipeline.labels.seams import Mismatch
from pipeline.labels.statistics import LabelTable
from pipeline.stages.faces import Face
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
        ("num_labels", pa.int64()),
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
        *((axis, pa.int64()) for axis in _AXES),
        ("score", pa.float32()),
        ("accepted", pa.bool_()),
        ("near_miss", pa.bool_()),
        ("reason", pa.dictionary(pa.int8(), pa.string())),
        ("lower_id", pa.uint64()),
        ("upper_id", pa.uint64()),
    ]
)
"""Columns of `edges.parquet`: z, y, x is a voxel that carries both; the score is the intersection over union."""

SEAM_SCHEMA = pa.schema(
    [
        ("class", pa.dictionary(pa.int16(), pa.string())),
        ("lower_block", pa.int64()),
        ("upper_block", pa.int64()),
        ("axis", pa.int8()),
        *((f"{axis}{end}", pa.int64()) for end in (0, 1) for axis in _AXES),
        ("slab_voxels", pa.int64()),
        ("labelled_voxels", pa.int64()),
        ("mismatch_voxels", pa.int64()),
        ("mismatch_fraction", pa.float64()),
        ("pairs", pa.int64()),
        ("merges", pa.int64()),
        ("near_misses", pa.int64()),
    ]
)
"""Columns of `seams.parquet`: the box of the slab in output voxels of the full volume, and what disagrees in it."""


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

    def add(self, class_name: str, ids: SegmentArray, rows: LabelTable, num_labels: NDArray[np.int64]) -> None:
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
            num_labels,
        ]
        self.add_columns(columns, len(ids))


class FaceRows(NamedTuple):
    """One class at one face, judged and numbered."""

    class_name: str
    """The class."""
    face: Face
    """The blocks on both sides."""
    slab: Box
    """The voxels that both labelled, output lattice."""
    table: OverlapTable
    """Pairs of labels."""
    scored: ScoredEdges
    """What became of them."""
    lower_ids: SegmentArray
    """Id that each pair's lower label has in the end; 0: dropped."""
    upper_ids: SegmentArray
    """And the upper one."""


class EdgeTableWriter(ParquetBuffer):
    """Writes `edges.parquet`."""

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(EDGE_SCHEMA)
        self._offset = plan.output_offset_zyx

    def add(self, rows: FaceRows) -> None:
        """Add the pairs of one face."""
        table, scored, num_rows = rows.table, rows.scored, len(rows.table.lower)
        voxels_zyx = np.unravel_index(table.first_voxel.astype(np.int64), rows.slab.shape)
        start = [a + b for a, b in zip(rows.slab.start, self._offset, strict=True)]
        columns = [
            repeated(rows.class_name, num_rows),
            np.full(num_rows, rows.face.block, np.int64),
            np.full(num_rows, rows.face.neighbor, np.int64),
            np.full(num_rows, rows.face.axis, np.int8),
            *(table.lower, table.upper, table.num_voxels, table.lower_voxels, table.upper_voxels),
            *(np.asarray(at, np.int64) + first for at, first in zip(voxels_zyx, start, strict=True)),
            *(scored.score, scored.accepted, scored.near_miss),
            pa.DictionaryArray.from_arrays(scored.reason.astype(np.int8), list(REASON_TEXTS)),
            rows.lower_ids,
            rows.upper_ids,
        ]
        self.add_columns(columns, num_rows)


class SeamTableWriter(ParquetBuffer):
    """Writes `seams.parquet`."""

    def __init__(self, plan: RunPlan) -> None:
        super().__init__(SEAM_SCHEMA)
        self._offset = plan.output_offset_zyx

    def add(self, rows: FaceRows, mismatch: Mismatch) -> None:
        """Add one face."""
        slab = rows.slab.shifted(self._offset)
        numbers = [rows.face.block, rows.face.neighbor, rows.face.axis, *slab.start, *slab.stop, slab.num_voxels]
        counts = [len(rows.scored.accepted), int(rows.scored.accepted.sum()), int(rows.scored.near_miss.sum())]
        fraction = mismatch.num_mismatched / slab.num_voxels
        values = [*numbers, mismatch.num_labelled, mismatch.num_mismatched, fraction, *counts]
        arrays = [pa.array([value], field.type) for value, field in zip(values, list(SEAM_SCHEMA)[1:], strict=True)]
        self.add_columns([repeated(rows.class_name, 1), *arrays], 1)
