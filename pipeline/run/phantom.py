"""Writing a phantom as OME-Zarr volumes, block by block, on several processes.

A voxel of a phantom depends on its global index alone, so blocks are drawn in any order and nothing but one block
per process is ever in memory.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice

from pipeline.errors import ConfigError
from pipeline.geometry import BlockGrid
from pipeline.phantom import LAYERS, PhantomSpec, render
from pipeline.storage import ImageSpec, ImageWriter, StorageOptions

_CHUNK = (64, 64, 64)
# Drawn at once: a few seconds of work and a few hundred MB.
_BLOCK = (64, 256, 256)


@dataclass(frozen=True)
class PhantomLayer:
    """One volume of a phantom."""

    layer: str
    """`image`, `mitochondria`, `neurites`, `synapses` or `glia`."""
    url: str
    """OME-Zarr group to write."""


def write_phantom(
    spec: PhantomSpec,
    layers: tuple[PhantomLayer, ...],
    *,
    workers: int = 1,
    options: StorageOptions | None = None,
    on_block: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Draw a phantom and write the layers that are wanted.

    Args:
        spec: the phantom.
        layers: what to write where.
        workers: processes that draw.
        options: how stores are reached.
        on_block: told the number of blocks done and in all.

    Raises:
        ConfigError: a layer does not exist.
        WorldError: a store failed.
    """
    unknown = sorted({item.layer for item in layers} - set(LAYERS))
    if unknown:
        raise ConfigError(f"phantom: no layer {', '.join(unknown)}; there are {', '.join(LAYERS)}")
    options = options or StorageOptions()
    specs = tuple((item.layer, _image_spec(spec, item)) for item in layers)
    for _, image_spec in specs:
        ImageWriter(image_spec, options).create()
    grid = BlockGrid(spec.box, _BLOCK)
    jobs = ((spec, specs, options, index) for index in range(len(grid)))
    for done, _ in enumerate(_spread(_draw_block, jobs, workers), start=1):
        on_block(done, len(grid))
    for layer, image_spec in specs:
        if layer == "image":
            ImageWriter(image_spec, options).build_pyramid()


def _image_spec(spec: PhantomSpec, item: PhantomLayer) -> ImageSpec:
    is_image = item.layer == "image"
    return ImageSpec(
        url=item.url,
        shape_zyx=spec.shape_zyx,
        dtype="uint8" if is_image else "uint64",
        voxel_size_zyx_nm=spec.voxel_size_zyx_nm,
        chunk_zyx=_CHUNK,
        factors_zyx=((2, 2, 2), (2, 2, 2)) if is_image else (),
        kind="image" if is_image else "labels",
        name=item.layer,
    )


def _draw_block(
    spec: PhantomSpec, specs: tuple[tuple[str, ImageSpec], ...], options: StorageOptions, index: int
) -> None:
    box = BlockGrid(spec.box, _BLOCK).box(index)
    block = render(spec, box, want=[layer for layer, _ in specs])
    for layer, image_spec in specs:
        voxels = getattr(block, f"{layer}_zyx")
        ImageWriter(image_spec, options).write(box, voxels)


def _spread(function: Callable[..., None], jobs: Iterable[tuple[object, ...]], workers: int) -> Iterator[None]:
    """Call the function for every job on a pool of processes, a bounded number at a time."""
    if workers == 1:
        for job in jobs:
            function(*job)
            yield
        return
    pending: set[Future[None]] = set()
    remaining = iter(jobs)
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            pending |= {pool.submit(function, *job) for job in islice(remaining, 2 * workers - len(pending))}
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                future.result()
                yield
