"""Which tasks of a stage are done: one bit each, so that 2 x 10^7 blocks cost 2.5 MB."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.errors import OurError

# Bytes looked at per step of a scan: one page, so that a scan through done tasks stays in the cache.
SCAN_BYTES: Final = 4096
FULL_BYTE: Final = 0xFF


class DoneMap:
    """A set of task indexes in [0, num_tasks), one bit per task, with its count."""

    def __init__(self, num_tasks: int) -> None:
        self._num_tasks = num_tasks
        self._bits = np.zeros((num_tasks + 7) // 8, dtype=np.uint8)
        self._count = 0

    def __len__(self) -> int:
        """How many tasks are in the set."""
        return self._count

    def __contains__(self, index: int) -> bool:
        """Whether a task is in the set."""
        self._check(index)
        return bool(self._bits[index >> 3] >> (index & 7) & 1)

    @property
    def num_tasks(self) -> int:
        """How many tasks there are in all."""
        return self._num_tasks

    @property
    def num_bytes(self) -> int:
        """Memory of the bits."""
        return self._bits.nbytes

    @property
    def is_full(self) -> bool:
        """Whether every task is in the set."""
        return self._count == self._num_tasks

    def add(self, index: int) -> bool:
        """Put a task into the set; tells whether it was new."""
        if index in self:
            return False
        self._bits[index >> 3] |= np.uint8(1 << (index & 7))
        self._count += 1
        return True

    def discard(self, index: int) -> bool:
        """Take a task out of the set; tells whether it was there."""
        if index not in self:
            return False
        self._bits[index >> 3] &= np.uint8(FULL_BYTE ^ (1 << (index & 7)))
        self._count -= 1
        return True

    def next_missing(self, start: int) -> int | None:
        """Give the first task at or after `start` that is not in the set, or None."""
        index = start
        while index < self._num_tasks and index & 7:
            if index not in self:
                return index
            index += 1
        if index >= self._num_tasks:
            return None
        first_byte = index >> 3
        while first_byte < self._bits.size:
            window = self._bits[first_byte : first_byte + SCAN_BYTES] != FULL_BYTE
            offset = int(window.argmax())
            if window[offset]:
                return self._first_zero(first_byte + offset)
            first_byte += SCAN_BYTES
        return None

    def _first_zero(self, byte: int) -> int | None:
        value = int(self._bits[byte])
        bit = (~value & (value + 1)).bit_length() - 1
        index = byte * 8 + bit
        return index if index < self._num_tasks else None

    def _check(self, index: int) -> None:
        if not 0 <= index < self._num_tasks:
            raise OurError(f"task index {index} lies outside a stage of {self._num_tasks} tasks")
