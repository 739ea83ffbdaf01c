"""Where a run that makes meshes writes: folders of meshes, and the fragments until they are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import CorruptData
from pipeline.ledger import UnitSum
from pipeline.stages import mesh_join
from pipeline.stages.mesh_plan import MESH_FOLDERS, MeshPlan
from pipeline.storage import ObjectStore, StorageOptions
from pipeline.storage.meshes import attach_meshes, delete_meshes, detach_meshes, mesh_info, read_mesh_file


class MeshPlaces:
    """See `Places`: folders of meshes, and the fragments."""

    def __init__(self, plan: MeshPlan, options: StorageOptions) -> None:
        self._plan = plan
        self._options = options
        self._volumes = {mesh_join.mesh_volume(number): volume for number, volume in enumerate(plan.volumes)}

    def num_units(self) -> Mapping[str, int | None]:
        """Files of meshes, of which there are as many as there are objects that have any."""
        return dict.fromkeys(self._volumes)

    def check_unit(self, unit: UnitSum) -> None:
        """Read one file of meshes again.

        Raises:
            CorruptData: it is gone, or not what the journal says.
        """
        volume = self._volumes[unit.volume]
        info = mesh_info(self._plan.section.format, volume.last_id, self._plan.section.objects_per_shard)
        segment = unit.position[2]
        data = read_mesh_file(volume.url, info, segment, self._options)
        if data is None or mesh_join.checksum_of(data) != unit.crc32c:
            found = "is gone" if data is None else f"holds {len(data)} bytes that are not those written"
            raise CorruptData(f"the file of meshes in {volume.url} that begins with object {segment} {found}")

    def mark(self, *, complete: bool) -> None:
        """Say in the volumes that they have meshes, or that they have none."""
        change = attach_meshes if complete else detach_meshes
        for volume in self._plan.volumes:
            if volume.format == "precomputed":
                change(volume.spec.url, self._options)

    def delete_outputs(self, outputs: Sequence[Mapping[str, Any]]) -> None:
        """See `Places.delete_outputs`."""
        self.mark(complete=False)
        for output in outputs:
            delete_meshes(output["url"], self._options)
        self.delete_intermediates()

    def delete_intermediates(self) -> None:
        """Remove the fragments."""
        store = ObjectStore(self._plan.url, self._options)
        for folder in MESH_FOLDERS:
            store.delete_prefix(folder)
