"""What the tables of a run add to its scene: the largest objects, blocks, and the worst faces between them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import VolumeNotFound
from pipeline.geometry import BlockGrid, Box
from pipeline.ledger.manifest import RunManifest
from pipeline.stages.layout import SEAMS_KEY, SEGMENTS_KEY
from pipeline.storage import LabelVolumeSpec, ObjectStore
from pipeline.storage.faults import store_faults
from pipeline.viewer.scene import Marks

# Of a run with more groups of blocks only the first parts of a table are read: a picture, not a census.
MOST_PARTS: Final = 64
MOST_BLOCKS: Final = 2000
WORST_FACES: Final = 8
MOST_SELECTED: Final = 300
MOST_PROPERTIES: Final = 50_000
_GRID_COLOR: Final = "#5588ff"
_SEAM_COLOR: Final = "#ff3333"


@dataclass(frozen=True)
class ClassObjects:
    """Objects of one class: the largest ones."""

    ids: NDArray[np.uint64]
    """Largest first."""
    voxels: NDArray[np.uint64]
    """Their sizes."""

    def selected(self) -> tuple[int, ...]:
        """Give those whose meshes and skeletons are drawn at the start."""
        return tuple(int(number) for number in self.ids[:MOST_SELECTED])

    def properties(self, class_name: str) -> bytes:
        """Write class and size for Neuroglancer's list."""
        # cloud-volume takes a second to import: only where it is needed.
        storage = importlib.import_module("pipeline.storage.segment_properties")
        order = np.argsort(self.ids[:MOST_PROPERTIES])
        info: bytes = storage.segment_properties_info(self.ids[order], [class_name] * len(order), self.voxels[order])
        return info


def read_parts(store: ObjectStore, key: str, num_parts: int, columns: list[str]) -> Iterator[pa.Table]:
    """Read columns of a table or of its first parts; nothing where the run has not come so far."""
    keys = [key] if num_parts == 1 else [f"{key}/{part:07d}.parquet" for part in range(min(num_parts, MOST_PARTS))]
    for part in keys:
        try:
            with store_faults(f"reading {part} of the run"), store.open(part) as file:
                yield pq.read_table(file, columns=columns)
        except VolumeNotFound:
            return


def largest_objects(store: ObjectStore, manifest: RunManifest) -> dict[str, ClassObjects]:
    """Give the largest objects of every class that has any."""
    num_parts = (manifest.num_tasks.get("resolve", 1) + 1) // 2
    found: dict[str, list[Any]] = {}
    for table in read_parts(store, SEGMENTS_KEY, num_parts, ["id", "class", "voxels"]):
        names = np.asarray(table["class"].cast(pa.string()))
        for name in dict.fromkeys(names.tolist()):
            rows = table.filter(pa.array(names == name)).sort_by([("voxels", "descending")]).slice(0, MOST_PROPERTIES)
            found.setdefault(name, []).append(rows)
    objects = {}
    for name, tables in found.items():
        rows = pa.concat_tables([table.select(["id", "voxels"]) for table in tables]).sort_by(
            [("voxels", "descending")]
        )
        objects[name] = ClassObjects(
            rows["id"].to_numpy()[:MOST_PROPERTIES], rows["voxels"].to_numpy()[:MOST_PROPERTIES]
        )
    return objects


def block_marks(manifest: RunManifest, spec: LabelVolumeSpec) -> Marks | None:
    """Draw the blocks of the labels; None where there are too many to see, or one."""
    grid = manifest.grids.get("label")
    if grid is None or not 1 < np.prod(grid["shape"]) <= MOST_BLOCKS:
        return None
    z, y, x = grid["core"]
    blocks = BlockGrid(Box.of_shape(spec.shape_zyx), (z, y, x))
    boxes = tuple((blocks.box(block).shifted(spec.offset_zyx_voxels), f"block {block}") for block in range(len(blocks)))
    return Marks("blocks", boxes, spec.voxel_size_zyx_nm, _GRID_COLOR)


def worst_faces(store: ObjectStore, manifest: RunManifest, count: int = WORST_FACES) -> list[dict[str, Any]]:
    """Give the rows of `seams.parquet` with the largest mismatch; faces without any are no seams."""
    columns = ["class", "lower_block", "upper_block", "axis", "z0", "y0", "x0", "z1", "y1", "x1"]
    columns += ["mismatch_voxels", "mismatch_fraction", "near_misses"]
    leaders = pa.table({name: [] for name in columns})
    for table in read_parts(store, SEAMS_KEY, manifest.num_tasks.get("audit", 1), columns):
        named = table.set_column(0, "class", table["class"].cast(pa.string()))
        named = named.filter(pc.greater(named["mismatch_voxels"], 0))
        both = pa.concat_tables([leaders, named], promote_options="permissive")
        leaders = both.sort_by([("mismatch_fraction", "descending")]).slice(0, count)
    rows: list[dict[str, Any]] = leaders.to_pylist()
    return rows


def seam_marks(store: ObjectStore, manifest: RunManifest, spec: LabelVolumeSpec) -> Marks | None:
    """Draw the worst faces between blocks; None where no two blocks disagree."""
    boxes = []
    for row in worst_faces(store, manifest):
        start, stop = (tuple(row[f"{axis}{end}"] for axis in "zyx") for end in (0, 1))
        blocks = f"blocks {row['lower_block']} and {row['upper_block']}"
        text = f"{row['class']}: {blocks}, {row['mismatch_fraction']:.2%} differ"
        boxes.append((Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])), text))
    return Marks("worst seams", tuple(boxes), spec.voxel_size_zyx_nm, _SEAM_COLOR, visible=True) if boxes else None
