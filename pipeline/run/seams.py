"""`sam4em seams`: how far neighboring blocks disagree at every face, and pictures of the worst.

1. read `seams.parquet`, a batch of faces at a time: totals per axis, and the worst faces
2. draw those, as far as the slabs are still there
3. leave `seams.json` and `seams/*.png` in the run directory
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import ConfigError, VolumeNotFound
from pipeline.labels.seams import find_ids, find_mismatch
from pipeline.ledger import ObjectStore
from pipeline.stages import audit
from pipeline.stages.context import TaskContext
from pipeline.stages.faces import Columns
from pipeline.stages.layout import SEAMS_KEY, column, face_key, lut_key, part_key
from pipeline.stages.plan import RunPlan
from pipeline.storage import unpack_table
from pipeline.viewer.reader import BoxReader
from pipeline.viewer.seam_picture import Seam, draw_seam

REPORT_KEY: Final = "seams.json"
PICTURE_FOLDER: Final = "seams"
_COUNTS: Final = ("slab_voxels", "labelled_voxels", "mismatch_voxels", "pairs", "merges", "near_misses")
_SHARES: Final = (0.001, 0.01, 0.05)
_ORDER: Final = [
    ("mismatch_fraction", "descending"),
    ("mismatch_voxels", "descending"),
    ("lower_block", "ascending"),
    ("axis", "ascending"),
]
_SHOWN: Final = ("mismatch_fraction", "mismatch_voxels", "labelled_voxels", "near_misses")


def report_seams(plan: RunPlan, context: TaskContext, store: ObjectStore, worst: int) -> dict[str, Any]:
    """Sum the seams of a run up, draw the worst and write both down.

    Args:
        plan: the run's plan.
        context: image, slabs and maps.
        store: the run directory.
        worst: faces to list and to draw.

    Returns:
        Totals, a table per axis and one of the worst faces, each with its picture or why there is none.

    Raises:
        ConfigError: the run has not come to its audit stage.
        WorldError: a table is damaged, or a store failed.
    """
    totals = {axis: {"faces": 0, **dict.fromkeys(_COUNTS, 0)} for axis in "zyx"}
    above = {f"faces_above_{share:.1%}": 0 for share in _SHARES}
    leaders = pa.schema([]).empty_table()
    for batch in _batches(plan, store):
        table = pa.Table.from_batches([batch])
        for number, axis in enumerate("zyx"):
            _add(totals[axis], table.filter(pc.equal(table["axis"], number)))
        for share in _SHARES:
            above[f"faces_above_{share:.1%}"] += pc.sum(pc.greater(table["mismatch_fraction"], share)).as_py() or 0
        # The column of classes is a dictionary of its own in every part.
        table = table.set_column(0, "class", table["class"].cast(pa.string()))
        leaders = table if leaders.num_columns == 0 else pa.concat_tables([leaders, table])
        leaders = leaders.sort_by(_ORDER).slice(0, worst)
    rows = leaders.to_pylist()
    summed = {name: sum(total[name] for total in totals.values()) for name in ("faces", *_COUNTS)}
    report = {
        **_with_fractions(summed),
        **above,
        "by_axis": {axis: _per_axis(total) for axis, total in totals.items()},
        "worst_faces": {_name(row): _worst_row(row, plan, context, store) for row in rows},
    }
    store.put(REPORT_KEY, json.dumps(report, indent=1).encode())
    return report


def _batches(plan: RunPlan, store: ObjectStore) -> Iterator[pa.RecordBatch]:
    for leaf in audit.tasks(plan):
        key = part_key(SEAMS_KEY, plan, leaf)
        try:
            data = store.get(key)
        except VolumeNotFound as error:
            raise ConfigError(
                f"reading the seams: {key} is not there, the run has not come so far; give its command again first"
            ) from error
        yield from pq.ParquetFile(io.BytesIO(data)).iter_batches()


def _add(total: dict[str, int], table: pa.Table) -> None:
    total["faces"] += table.num_rows
    for name in _COUNTS:
        total[name] += pc.sum(table[name]).as_py() or 0


def _with_fractions(counts: dict[str, int]) -> dict[str, Any]:
    slab, labelled = max(1, counts["slab_voxels"]), max(1, counts["labelled_voxels"])
    return {
        **counts,
        "mismatch_fraction": counts["mismatch_voxels"] / slab,
        "mismatch_of_labelled": counts["mismatch_voxels"] / labelled,
    }


def _per_axis(counts: dict[str, int]) -> dict[str, Any]:
    figures = _with_fractions(counts)
    return {name: figures[name] for name in ("faces", *_SHOWN, "mismatch_of_labelled")}


def _name(row: dict[str, Any]) -> str:
    return f"{row['class']}-{row['lower_block']}-{row['upper_block']}-{'zyx'[row['axis']]}"


def _worst_row(row: dict[str, Any], plan: RunPlan, context: TaskContext, store: ObjectStore) -> dict[str, Any]:
    """Give a face's row of the report, and draw it where there is anything to see."""
    start, stop = ([row[f"{axis}{end}"] for axis in "zyx"] for end in (0, 1))
    box = ",".join(f"{a}:{b}" for a, b in zip(start, stop, strict=True))
    return {**{name: row[name] for name in _SHOWN}, "box": box, "picture": _draw(row, plan, context, store)}


def _draw(row: dict[str, Any], plan: RunPlan, context: TaskContext, store: ObjectStore) -> str | None:
    """Draw a face; gives the picture's key, or why there is none; None where no voxel differs."""
    if row["mismatch_voxels"] == 0:
        return None
    number = next(number for number, rule in enumerate(plan.classes) if rule.name == row["class"])
    block, neighbor, axis = row["lower_block"], row["upper_block"], row["axis"]
    try:
        slabs = [_table(context.kept, face_key(block, axis, 1)), _table(context.kept, face_key(neighbor, axis, 0))]
        maps = [_table(context.objects, lut_key(block)), _table(context.objects, lut_key(neighbor))]
    except VolumeNotFound:
        return "none: cleaned"
    seam = _seam(
        [slab[column(number, "labels")] for slab in slabs], [ids[column(number, "ids")] for ids in maps], row, plan
    )
    size = plan.source_voxel_size_nm
    image = BoxReader(context.image.read, context.image.info.shape_zyx, context.image.info.dtype, size)
    key = f"{PICTURE_FOLDER}/{_name(row)}.png"
    title = (
        f"{row['class']}: blocks {block} and {neighbor} along {'zyx'[axis]}; {row['mismatch_voxels']:,} of "
        f"{row['slab_voxels']:,} voxels of the slab differ ({row['mismatch_fraction']:.2%})"
    )
    store.put(key, draw_seam(image, seam, title))
    return key


def _table(store: ObjectStore, key: str) -> Columns:
    return unpack_table(store.get(key), key)


def _seam(labels: list[NDArray[Any]], ids: list[NDArray[np.uint64]], row: dict[str, Any], plan: RunPlan) -> Seam:
    """Put together what two blocks say of a slab; one that was stored without voxels is background."""
    start = [row[f"{axis}0"] for axis in "zyx"]
    shape = [row[f"{axis}1"] - first for axis, first in zip("zyx", start, strict=True)]
    lower_zyx, upper_zyx = (part if part.size else np.zeros(shape, np.uint8) for part in labels)
    axis, size = row["axis"], plan.output_voxel_size_nm
    first = plan.label_grid.box(row["upper_block"]).start[axis] + plan.output_offset_zyx[axis]
    return Seam(
        lower_ids_zyx=find_ids(lower_zyx, ids[0]),
        upper_ids_zyx=find_ids(upper_zyx, ids[1]),
        is_different_zyx=find_mismatch(lower_zyx, upper_zyx, ids[0], ids[1]),
        voxel_size_zyx_nm=size,
        start_zyx_nm=(start[0] * size[0], start[1] * size[1], start[2] * size[2]),
        axis=axis,
        face=first - start[axis],
    )
