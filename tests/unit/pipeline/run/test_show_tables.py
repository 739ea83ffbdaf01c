import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ledger import RunManifest
from pipeline.run.show_tables import block_marks, largest_objects, seam_marks
from pipeline.storage import LabelVolumeSpec, ObjectStore

SPEC = LabelVolumeSpec("seg", (10, 20, 30), (30.0, 8.0, 8.0), (5, 10, 10), offset_zyx_voxels=(3, 5, 7))


def manifest(grid_shape=(2, 2, 2), resolve=1):
    grids = {"label": {"shape": list(grid_shape), "core": [5, 10, 15]}}
    return RunManifest({}, {}, {}, grids, {"resolve": resolve, "audit": 1}, None, 1)


@pytest.fixture
def store(tmp_path):
    return ObjectStore(str(tmp_path))


def put(store, key, columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    store.put(key, bytes(sink.getvalue()))


def test_the_largest_objects_of_all_parts_come_first(store):
    names = pa.array(["mito", "mito", "glia"]).dictionary_encode()
    put(store, "segments.parquet/0000000.parquet", {"id": [1, 2, 9], "class": names, "voxels": [5, 50, 7]})
    put(store, "segments.parquet/0000001.parquet", {"id": [3, 4, 10], "class": names, "voxels": [500, 1, 70]})
    objects = largest_objects(store, manifest(resolve=3))
    assert objects["mito"].selected() == (3, 2, 1, 4)
    assert objects["glia"].selected() == (10, 9)
    inline = json.loads(objects["mito"].properties("mito"))["inline"]
    assert inline["ids"] == ["1", "2", "3", "4"]
    assert inline["properties"][2]["values"] == [5, 50, 500, 1]


def test_a_run_that_has_no_tables_yet_has_no_objects_and_no_seams(store):
    assert largest_objects(store, manifest()) == {}
    assert seam_marks(store, manifest(), SPEC) is None


def test_blocks_lie_where_the_region_begins():
    marks = block_marks(manifest(), SPEC)
    assert len(marks.boxes) == 8
    first, last = marks.boxes[0][0], marks.boxes[-1][0]
    assert (first.start, first.stop) == ((3, 5, 7), (8, 15, 22))
    assert last.stop == (13, 25, 37)


@pytest.mark.parametrize("shape", [(1, 1, 1), (100, 100, 100)])
def test_one_block_and_too_many_are_not_drawn(shape):
    assert block_marks(manifest(shape), SPEC) is None


def test_only_faces_that_differ_are_seams_and_the_worst_come_first(store):
    rows = 12
    columns = {name: np.arange(rows) for name in ("lower_block", "upper_block", "z0", "y0", "x0", "z1", "y1", "x1")}
    fraction = np.linspace(0, 0.5, rows)
    columns |= {
        "class": pa.array(["mito"] * rows).dictionary_encode(),
        "axis": np.zeros(rows, np.int8),
        "mismatch_voxels": (fraction * 100).astype(np.int64),
        "mismatch_fraction": fraction,
        "near_misses": np.zeros(rows, np.int64),
    }
    put(store, "seams.parquet", columns)
    marks = seam_marks(store, manifest(), SPEC)
    assert len(marks.boxes) == 8
    assert marks.boxes[0][1] == "mito: blocks 11 and 11, 50.00% differ"
