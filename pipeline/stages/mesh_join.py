"""mesh-join: one range of ids of one label volume -> their meshes, in one shard or as legacy files.

1. the objects of the range that are wanted, with their bounding boxes
2. the blocks that these touch; of each the fragments that belong to the range
3. fragments joined; coarser levels; encoded and written

Tasks are numbered volume by volume. A range holds the ids that share a shard, so each file has one writer.
"""

from __future__ import annotations

from typing import Any, Final

import google_crc32c
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import IntermediateLost, OurError, VolumeNotFound
from pipeline.geometry import Box
from pipeline.labels.surfaces import Fragment, Fragments, Surface, coarser, join_fragments
from pipeline.stages.mesh import NAME as MESH
from pipeline.stages.mesh_context import MeshContext
from pipeline.stages.mesh_plan import FRAGMENT_IDS, FRAGMENTS, MeshedVolume, MeshPlan, fragment_key
from pipeline.stages.report import Stopwatch, TaskReport, WrittenUnit
from pipeline.storage import unpack_table
from pipeline.storage.meshes import Mesh, encode_levels, mesh_info, mesh_of, write_legacy_mesh, write_shard

NAME = "mesh-join"
# A level has a quarter of the triangles of the one below it, and no object needs one with fewer than these.
_LEVEL_RATIO: Final = 4
_FEWEST_TRIANGLES: Final = 300


def tasks(plan: MeshPlan) -> range:
    """Give the indices of the stage's tasks."""
    return range(sum(plan.num_shards(volume) for volume in plan.volumes))


def locate(index: int, plan: MeshPlan) -> tuple[int, int]:
    """Turn a task's index into a volume and a shard.

    Raises:
        OurError: there is no such task.
    """
    rest = index
    for number, volume in enumerate(plan.volumes):
        if rest < plan.num_shards(volume):
            return number, volume.first_id // plan.section.objects_per_shard + rest
        rest -= plan.num_shards(volume)
    raise OurError(f"mesh-join task {index} does not exist; there are {len(tasks(plan))}")


def run(index: int, plan: MeshPlan, context: MeshContext) -> TaskReport:
    """Carry out one task.

    Args:
        index: see `tasks`.
        plan: the plan of the meshes.
        context: where things are.

    Raises:
        IntermediateLost: what a block has left is gone.
        WorldError: a store failed.
    """
    number, shard = locate(index, plan)
    volume, watch = plan.volumes[number], Stopwatch()
    first = shard * plan.section.objects_per_shard
    with watch.phase("read"):
        rows = context.rows(volume, max(first, volume.first_id), first + plan.section.objects_per_shard - 1)
        rows = rows.filter(pa.array(_is_wanted(rows, plan, context)))
        pieces = _gather(number, rows, plan, context)
    counters = {"objects": len(pieces), "without_surface": rows.num_rows - len(pieces), "triangles": 0}
    levels: dict[int, list[Mesh]] = {}
    with watch.phase("compute"):
        for segment, fragments in pieces.items():
            surface = join_fragments(fragments)
            counters["triangles"] += len(surface.triangles)
            levels[segment] = make_levels(surface, volume, plan)
    units: tuple[WrittenUnit, ...] = ()
    with watch.phase("write"):
        if levels:
            units = tuple(
                WrittenUnit(mesh_volume(number), (0, 0, segment), checksum)
                for segment, checksum in _write(volume, levels, plan, context)
            )
    return TaskReport(NAME, index, "written" if levels else "empty", units, seconds=watch.seconds, counters=counters)


def mesh_volume(number: int) -> str:
    """Name the meshes of a volume in the journal; a unit of them is one file, its x the first id in it."""
    return f"{MESH}-{number}"


def checksum_of(data: bytes) -> int:
    """Give the CRC-32C of a file of meshes."""
    return int(google_crc32c.value(data))


def make_levels(surface: Surface, volume: MeshedVolume, plan: MeshPlan) -> list[Mesh]:
    """Give an object in levels of detail, finest first, in nm.

    A small object has fewer levels than the user allows: it is never far enough away to need them.
    """
    surfaces = [surface]
    wanted = plan.section.levels if plan.section.format == "multiresolution" else 1
    while len(surfaces) < wanted:
        num_triangles = len(surfaces[-1].triangles) // _LEVEL_RATIO
        if num_triangles < _FEWEST_TRIANGLES:
            break
        surfaces.append(coarser(surfaces[-1], plan.voxel_size_zyx_nm, num_triangles))
    size = np.array(plan.voxel_size_zyx_nm)
    start_nm = np.array(_start_voxel(volume)) * np.array(volume.spec.voxel_size_zyx_nm)
    # A voxel's center lies half a voxel beyond its index.
    return [mesh_of((level.vertices_zyx + 0.5) * size + start_nm, level.triangles) for level in surfaces]


def _start_voxel(volume: MeshedVolume) -> list[float]:
    """Give the place of the volume's first voxel among those of the full volume, as precomputed counts them."""
    spec = volume.spec
    origin = spec.origin_zyx_nm or (0.0, 0.0, 0.0)
    sizes = zip(spec.offset_zyx_voxels, origin, spec.voxel_size_zyx_nm, strict=True)
    return [offset + np.floor(nm / size + 0.5) for offset, nm, size in sizes]


def _is_wanted(rows: pa.Table, plan: MeshPlan, context: MeshContext) -> NDArray[np.bool_]:
    voxel_nm3 = float(np.prod(plan.volumes[0].spec.voxel_size_zyx_nm))
    is_wanted = rows["voxels"].to_numpy() * voxel_nm3 >= plan.section.min_size_nm3
    if context.chosen is not None:
        is_wanted &= np.isin(rows["id"].to_numpy(), context.chosen)
    return np.asarray(is_wanted, np.bool_)


def _gather(number: int, rows: pa.Table, plan: MeshPlan, context: MeshContext) -> dict[int, list[Fragment]]:
    """Collect the fragments of objects; those without a surface have no entry."""
    blocks: set[int] = set()
    offset = plan.volumes[number].spec.offset_zyx_voxels
    for row in rows.to_pylist():
        box = Box((row["z0"], row["y0"], row["x0"]), (row["z1"], row["y1"], row["x1"])).relative_to(offset)
        blocks.update(plan.blocks_of(box))
    wanted = np.sort(rows["id"].to_numpy())
    pieces: dict[int, list[Fragment]] = {}
    for block in sorted(blocks):
        found = np.isin(_read(FRAGMENT_IDS, number, block, plan, context)["ids"], wanted)
        if found.any():
            fragments = Fragments(**_read(FRAGMENTS, number, block, plan, context))
            for index in np.flatnonzero(found):
                pieces.setdefault(int(fragments.ids[index]), []).append(fragments.of(int(index)))
    return dict(sorted(pieces.items()))


def _read(folder: str, number: int, block: int, plan: MeshPlan, context: MeshContext) -> dict[str, NDArray[Any]]:
    key = fragment_key(folder, number, block)
    try:
        return unpack_table(context.objects.get(key), key)
    except VolumeNotFound as error:
        raise IntermediateLost(
            f"joining meshes: {key} is gone; the same command makes it again, unless something removes the run's files "
            f"[made by {MESH}-{number * len(plan.grid) + block}]"
        ) from error


def _write(
    volume: MeshedVolume, levels: dict[int, list[Mesh]], plan: MeshPlan, context: MeshContext
) -> list[tuple[int, int]]:
    """Write the meshes of a range; gives the first id in each file and its checksum."""
    section = plan.section
    if section.format == "legacy":
        return [
            (segment, checksum_of(write_legacy_mesh(volume.url, segment, meshes[0], context.options)))
            for segment, meshes in levels.items()
        ]
    size_nm = max(plan.voxel_size_zyx_nm)
    encoded = {segment: encode_levels(segment, meshes, size_nm) for segment, meshes in levels.items()}
    info = mesh_info(section.format, volume.last_id, section.objects_per_shard)
    return [(min(levels), checksum_of(write_shard(volume.url, info, encoded, context.options)))]
