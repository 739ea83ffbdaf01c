"""The file of a user's orders: which pairs must not be one object, and which must.

CSV with a header, or parquet. Either rows of `edges.parquet` (a pair of labels at one face):

    class, lower_block, upper_block, lower_label, upper_label [, action]

or pairs of ids of the run that is stitched again; the same id twice stands for every seam inside it:

    first_id, second_id [, action]

`action` is `veto`, the default, or `merge`. Columns beside these are passed over. Every row must speak of pairs that
the run has judged: a merge needs a shared voxel.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.ledger import ObjectStore
from pipeline.stages import audit
from pipeline.stages.layout import EDGES_KEY, part_key
from pipeline.stages.orders import OrderBook
from pipeline.stages.plan import RunPlan

LABEL_COLUMNS: Final = ("lower_block", "upper_block", "lower_label", "upper_label")
ID_COLUMNS: Final = ("first_id", "second_id")
ACTIONS: Final = ("veto", "merge")
_LISTED: Final = 5
_AUDIT_COLUMNS: Final = ("class", *LABEL_COLUMNS, "axis", "lower_id", "upper_id")

# Class index (-1: by ids), then the pair: lower and upper block and label, or both ids.
Key = tuple[int, ...]


@dataclass(frozen=True)
class Orders:
    """The rows of a file."""

    path: str
    """Where they stand, for messages."""
    by_ids: bool
    """Pairs of ids; else pairs of labels."""
    keys: list[Key]
    """What each row is about."""
    merge: list[bool]
    """What each row orders."""


def read_orders(path: Path, class_names: tuple[str, ...]) -> Orders:
    """Read a file of orders.

    Args:
        path: CSV, or parquet where it ends in `.parquet`.
        class_names: classes of the run; with one, rows need not name it.

    Raises:
        ConfigError: there is no such file, columns are missing, or a value is no id, class or action.
    """
    table = _read_table(path)
    names = set(table.column_names)
    by_ids = set(ID_COLUMNS) <= names
    if not by_ids and not set(LABEL_COLUMNS) <= names:
        raise ConfigError(
            f"reading orders {path}: found columns {', '.join(table.column_names) or '(none)'}; expected "
            f"{', '.join(ID_COLUMNS)}, or class, {', '.join(LABEL_COLUMNS)} as in edges.parquet"
        )
    columns = [_integers(table, name, path) for name in (ID_COLUMNS if by_ids else LABEL_COLUMNS)]
    rows = list(zip(*columns, strict=True))
    if by_ids:
        keys: list[Key] = [(-1, min(a, b), max(a, b)) for a, b in rows]
    else:
        keys = [(number, *row) for number, row in zip(_classes(table, class_names, path), rows, strict=True)]
    if not keys:
        raise ConfigError(f"reading orders {path}: it has no row; leave --veto out, or name a pair")
    return Orders(str(path), by_ids, keys, _actions(table, path))


def find_pairs(orders: Orders, store: ObjectStore, plan: RunPlan) -> OrderBook:
    """Look the pairs up in the audit table of the run that is stitched again, a batch of rows at a time.

    Args:
        orders: what the user wants.
        store: run directory of that run.
        plan: its plan.

    Raises:
        ConfigError: rows name pairs that the run has not judged.
        WorldError: the audit table is missing or damaged.
    """
    merge_of: dict[Key, bool] = {}
    for key, merge in zip(orders.keys, orders.merge, strict=True):
        # A veto wins over an order to merge.
        merge_of[key] = merge_of.get(key, True) and merge
    numbers = {rule.name: number for number, rule in enumerate(plan.classes)}
    found: list[tuple[int, int, int, int, int, bool]] = []
    missing = set(merge_of)
    wanted = np.unique(np.array([key[1:] for key in merge_of], np.uint64)[:, 0])
    for batch in _audit_batches(store, plan):
        for row in _candidates(batch, orders.by_ids, wanted):
            key = _key_of(row, numbers, by_ids=orders.by_ids)
            if key in merge_of:
                missing.discard(key)
                found.append(
                    (
                        numbers[row["class"]],
                        row["lower_block"],
                        row["axis"],
                        row["lower_label"],
                        row["upper_label"],
                        merge_of[key],
                    )
                )
    if missing:
        _refuse_unknown(orders, missing)
    columns = list(zip(*found, strict=True))
    types = (np.int64, np.int64, np.int64, np.uint64, np.uint64, np.bool_)
    return OrderBook(*(np.array(column, kind) for column, kind in zip(columns, types, strict=True)))


def _read_table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            return pq.read_table(path)
        # Given types: what looks like a number beyond 2^63 would be read as a float otherwise.
        types = dict.fromkeys((*ID_COLUMNS, *LABEL_COLUMNS), pa.uint64())
        return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=types))
    except FileNotFoundError as error:
        raise ConfigError(f"reading orders {path}: there is no such file") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(f"reading orders {path}: {error}; expected CSV with a header, or .parquet") from error


def _integers(table: pa.Table, name: str, path: Path) -> list[int]:
    column = table.column(name)
    values = column.to_pylist()
    if not pa.types.is_integer(column.type) or None in values or any(value < 0 for value in values):
        raise ConfigError(f"reading orders {path}: column {name} must hold whole numbers from 0 on, all of them given")
    if name in (*ID_COLUMNS, "lower_label", "upper_label") and 0 in values:
        raise ConfigError(f"reading orders {path}: column {name} holds 0, which is background; ids begin at 1")
    return values


def _classes(table: pa.Table, class_names: tuple[str, ...], path: Path) -> list[int]:
    if "class" not in table.column_names:
        if len(class_names) > 1:
            raise ConfigError(f"reading orders {path}: column class is missing; the run has {', '.join(class_names)}")
        return [0] * table.num_rows
    names = [str(name) for name in table.column("class").to_pylist()]
    strangers = sorted(set(names) - set(class_names))
    if strangers:
        raise ConfigError(f"reading orders {path}: class {strangers[0]!r}; the run has {', '.join(class_names)}")
    return [class_names.index(name) for name in names]


def _actions(table: pa.Table, path: Path) -> list[bool]:
    if "action" not in table.column_names:
        return [False] * table.num_rows
    actions = [str(action) for action in table.column("action").to_pylist()]
    strangers = sorted(set(actions) - set(ACTIONS))
    if strangers:
        raise ConfigError(f"reading orders {path}: action {strangers[0]!r}; it is {' or '.join(ACTIONS)}")
    return [action == "merge" for action in actions]


def _audit_batches(store: ObjectStore, plan: RunPlan) -> Iterator[pa.RecordBatch]:
    for leaf in audit.tasks(plan):
        file = pq.ParquetFile(io.BytesIO(store.get(part_key(EDGES_KEY, plan, leaf))))
        yield from file.iter_batches(columns=list(_AUDIT_COLUMNS))


def _candidates(batch: pa.RecordBatch, by_ids: bool, wanted: NDArray[np.uint64]) -> list[dict[str, Any]]:
    """Give the rows whose first number is wanted: all that are, and few more."""
    if by_ids:
        first = np.minimum(batch.column("lower_id").to_numpy(), batch.column("upper_id").to_numpy())
    else:
        first = batch.column("lower_block").to_numpy().astype(np.uint64)
    rows = np.flatnonzero(np.isin(first, wanted))
    return batch.take(pa.array(rows)).to_pylist() if len(rows) else []


def _key_of(row: dict[str, Any], numbers: dict[str, int], *, by_ids: bool) -> Key:
    if by_ids:
        return (-1, min(row["lower_id"], row["upper_id"]), max(row["lower_id"], row["upper_id"]))
    return (numbers[row["class"]], *(row[name] for name in LABEL_COLUMNS))


def _refuse_unknown(orders: Orders, missing: set[Key]) -> None:
    rows = [number for number, key in enumerate(orders.keys, start=1) if key in missing]
    listed = "; ".join(f"row {row}: {', '.join(map(str, orders.keys[row - 1][1:]))}" for row in rows[:_LISTED])
    more = f" and {len(rows) - _LISTED} more" if len(rows) > _LISTED else ""
    what = "ids between which" if orders.by_ids else "labels (both blocks, both labels) for which"
    raise ConfigError(
        f"looking up orders of {orders.path}: {len(rows)} rows name {what} the run has judged no pair: {listed}{more}; "
        "edges.parquet of the run lists all pairs, with their ids"
    )
