"""Where a run that makes shapes writes: folders of meshes or skeletons, and the fragments until they are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import CorruptData
from pipeline.ledger import UnitSum
from pipeline.run.shape_recipes import folder_info, recipe_of
from pipeline.stages.shape_joins import checksum_of
from pipeline.stages.shape_plan import FRAGMENT_FOLDERS, ShapePlan, shape_unit
from pipeline.storage import ObjectStore, StorageOptions
from pipeline.storage.shapes import attach_shapes, delete_shapes, detach_shapes, read_shape_file


class ShapePlaces:
    """See `Places`: folders of shapes, and the fragments."""

    def __init__(self, plan: ShapePlan, options: StorageOptions) -> None:
        self._plan = plan
        self._options = options
        self._volumes = {shape_unit(plan, number): volume for number, volume in enumerate(plan.volumes)}

    def num_units(self) -> Mapping[str, int | None]:
        """Files of shapes, of which there are as many as there are objects that have any."""
        return dict.fromkeys(self._volumes)

    def check_unit(self, unit: UnitSum) -> None:
        """Read one file of shapes again.

        Raises:
            CorruptData: it is gone, or not what the journal says.
        """
        volume = self._volumes[unit.volume]
        segment = unit.position[2]
        data = read_shape_file(volume.url, folder_info(volume, self._plan), segment, self._options)
        if data is None or checksum_of(data) != unit.crc32c:
            found = "is gone" if data is None else f"holds {len(data)} bytes that are not those written"
            raise CorruptData(
                f"the file of {self._plan.made} in {volume.url} that begins with object {segment} {found}"
            )

    def mark(self, *, complete: bool) -> None:
        """Say in the volumes that they have shapes, or that they have none."""
        change = attach_shapes if complete else detach_shapes
        for volume in self._plan.volumes:
            if volume.format == "precomputed":
                change(volume.spec.url, recipe_of(self._plan).folder, self._options)

    def delete_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """See `Places.delete_outputs`."""
        self.mark(complete=False)
        for output in outputs:
            delete_shapes(output["url"], self._options)
        self.delete_intermediates()

    def delete_intermediates(self) -> None:
        """Remove the fragments."""
        store = ObjectStore(self._plan.url, self._options)
        for folder in FRAGMENT_FOLDERS:
            store.delete_prefix(folder)
