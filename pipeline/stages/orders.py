"""What a user has ordered: pairs of labels that must not be one object, and pairs that must."""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.merges import MergeOrders
from pipeline.storage import pack_table, unpack_table


class OrderBook(NamedTuple):
    """One row per pair of labels, sorted by lower block, then axis."""

    class_index: NDArray[np.int64]
    """Which class of the plan."""
    block: NDArray[np.int64]
    """Lower block of the face."""
    axis: NDArray[np.int64]
    """Axis across the face."""
    lower: NDArray[np.uint64]
    """Label in the lower block."""
    upper: NDArray[np.uint64]
    """Label in the block above."""
    merge: NDArray[np.bool_]
    """True: they are one object; False: they are not."""

    @classmethod
    def empty(cls) -> Self:
        """Make the book of a run without orders."""
        nothing = np.empty(0, np.int64)
        return cls(
            nothing, nothing, nothing, nothing.astype(np.uint64), nothing.astype(np.uint64), nothing.astype(bool)
        )

    @classmethod
    def unpacked(cls, data: bytes, name: str) -> Self:
        """Read a stored book.

        Raises:
            CorruptData: it is damaged.
        """
        table = unpack_table(data, name)
        return cls(*(table[field] for field in cls._fields))

    def packed(self) -> bytes:
        """Write the book: the same orders give the same bytes, in whatever order they came."""
        order = np.lexsort((self.merge, self.upper, self.lower, self.class_index, self.axis, self.block))
        return pack_table({name: values[order] for name, values in self._asdict().items()})

    def of_face(self, class_index: int, block: int, axis: int) -> MergeOrders | None:
        """Give the orders for one class at one face; None where there are none."""
        rows = slice(*np.searchsorted(self.block, [block, block + 1]))
        chosen = np.flatnonzero((self.axis[rows] == axis) & (self.class_index[rows] == class_index)) + rows.start
        if len(chosen) == 0:
            return None
        return MergeOrders(self.lower[chosen], self.upper[chosen], self.merge[chosen])
