"""Files of orders that cannot be read, and rows that name nothing."""

import io
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.geometry import GroupTree
from pipeline.run.orders import find_pairs, read_orders

CLASSES = ("object",)


@pytest.fixture
def write(tmp_path):
    def call(text, name="orders.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "found columns a, b; expected first_id, second_id, or class, lower_block"),
        ("first_id\n1\n", "expected first_id, second_id"),
        ("first_id,second_id\n", "no row"),
        ("first_id,second_id\n1,x\n", "uint64: invalid value 'x'"),
        ("first_id,second_id\n1,\n2,3\n", "column second_id must hold whole numbers"),
        ("first_id,second_id\n1,-2\n", "uint64: invalid value '-2'"),
        ("first_id,second_id\n1.5,2\n", r"uint64: invalid value '1\.5'"),
        ("first_id,second_id\n0,2\n", "0, which is background"),
        ("first_id,second_id,action\n1,2,split\n", "action 'split'; it is veto or merge"),
        ("class,lower_block,upper_block,lower_label,upper_label\nx,0,1,1,1\n", "class 'x'; the run has object"),
        ("first_id,second_id\n1,2,3\n", "expected CSV with a header"),
        ("", "expected CSV with a header"),
    ],
)
def test_files_that_cannot_be_used(write, text, expected):
    with pytest.raises(ConfigError, match=expected):
        read_orders(write(text), CLASSES)


def test_files_that_are_not_there_or_no_parquet(write, tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_orders(tmp_path / "none.csv", CLASSES)
    with pytest.raises(ConfigError, match=r"expected CSV with a header, or \.parquet"):
        read_orders(write("first_id,second_id\n1,2\n", "orders.parquet"), CLASSES)
    pq.write_table(pa.table({"first_id": [1.0], "second_id": [2]}), tmp_path / "float.parquet")
    with pytest.raises(ConfigError, match="column first_id must hold whole numbers"):
        read_orders(tmp_path / "float.parquet", CLASSES)


def test_with_several_classes_labels_need_one_and_ids_do_not(write):
    labels = "lower_block,upper_block,lower_label,upper_label\n0,1,1,1\n"
    assert read_orders(write(labels), CLASSES).keys == [(0, 0, 1, 1, 1)]
    with pytest.raises(ConfigError, match="column class is missing; the run has object, other"):
        read_orders(write(labels), (*CLASSES, "other"))
    ids = read_orders(write("first_id,second_id,action\n9,4,merge\n4,9,veto\n"), (*CLASSES, "other"))
    assert (ids.keys, ids.merge) == ([(-1, 4, 9), (-1, 4, 9)], [True, False])


def audited(*rows):
    """A run of two groups whose audit table has these rows."""
    names = ("class", "lower_block", "upper_block", "axis", "lower_label", "upper_label", "lower_id", "upper_id")
    kinds = [pa.string(), pa.int64(), pa.int64(), pa.int8(), *[pa.uint64()] * 4]
    parts = {}
    for leaf in (0, 1):
        chosen = [row for row in rows if row[1] // 2 == leaf]
        table = pa.table(
            {n: pa.array([r[i] for r in chosen], k) for i, (n, k) in enumerate(zip(names, kinds, strict=True))}
        )
        sink = io.BytesIO()
        pq.write_table(table, sink)
        parts[f"edges.parquet/{leaf:07d}.parquet"] = sink.getvalue()
    plan = SimpleNamespace(
        classes=(SimpleNamespace(name="object"), SimpleNamespace(name="other")),
        group_tree=GroupTree((4, 1, 1), (2, 1, 1)),
    )
    return SimpleNamespace(get=parts.__getitem__), plan


BIG = 2**63 + 7
ROWS = (
    ("object", 0, 1, 0, 1, 2, 5, BIG),
    ("object", 0, 1, 0, 1, 3, 5, 5),
    ("other", 2, 3, 0, 1, 2, BIG, 5),
    ("other", 1, 2, 0, 1, 2, 0, 5),
)


def test_pairs_are_found_in_every_part_whichever_way_round(write):
    store, plan = audited(*ROWS)
    orders = read_orders(write(f"first_id,second_id\n{BIG},5\n"), ("object", "other"))
    book = find_pairs(orders, store, plan)
    assert book.class_index.tolist() == [0, 1]
    assert book.block.tolist() == [0, 2]
    assert (book.lower.tolist(), book.upper.tolist(), book.merge.tolist()) == ([1, 1], [2, 2], [False, False])
    assert book.lower.dtype == np.uint64
    labels = "class,lower_block,upper_block,lower_label,upper_label,action\nother,2,3,1,2,merge\n"
    found = find_pairs(read_orders(write(labels), ("object", "other")), store, plan)
    assert (found.class_index.tolist(), found.block.tolist(), found.merge.tolist()) == ([1], [2], [True])


def test_a_veto_wins_over_a_merge_of_the_same_pair(write):
    store, plan = audited(*ROWS)
    orders = read_orders(write("first_id,second_id,action\n5,5,veto\n5,5,merge\n"), ("object", "other"))
    assert find_pairs(orders, store, plan).merge.tolist() == [False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first_id,second_id\n5,5\n5,6\n", "1 rows name ids between which the run has judged no pair: row 2: 5, 6"),
        (
            "class,lower_block,upper_block,lower_label,upper_label\nobject,0,1,1,4\n",
            "row 1: 0, 1, 1, 4; edges.parquet of the run lists all pairs",
        ),
        ("first_id,second_id\n" + "".join(f"{n},{n}\n" for n in range(11, 18)), "7 rows .* and 2 more"),
    ],
)
def test_rows_that_name_no_pair(write, text, expected):
    store, plan = audited(*ROWS)
    with pytest.raises(ConfigError, match=expected):
        find_pairs(read_orders(write(text), ("object", "other")), store, plan)
