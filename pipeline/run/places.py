"""What the driver, `verify` and `clean` ask of the places a run writes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipeline.ledger import UnitSum


class Places(Protocol):
    """The output volumes and the scratch of one run."""

    def num_units(self) -> Mapping[str, int | None]:
        """Write units per output array, by the name that `UnitSum.volume` uses; None: only the journal knows."""
        ...

    def check_unit(self, unit: UnitSum) -> None:
        """Re-read one write unit of an output; CorruptData when it is not what the journal says."""
        ...

    def mark(self, *, complete: bool) -> None:
        """Say in the outputs' own metadata whether they are whole."""
        ...

    def delete_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """Remove the outputs and the scratch that a manifest lists, and nothing else."""
        ...

    def delete_intermediates(self) -> None:
        """Remove the scratch; the outputs, the tables and the report stay."""
        ...
