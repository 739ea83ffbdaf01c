"""Whole labelling with `threshold` against `dask_image.ndmeasure.label`, same volume, same 32 blocks, two cores.

Both read a zarr volume of 256 x 1024 x 1024 voxels and write a zarr volume of ids. Start-up (imports, cluster) is
measured on a volume of one small block and taken off. `--part NAME PATH` is how the script calls itself.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from measure import BLOCK, SHAPE, cost_of, make_volume, report

TINY = (32, 64, 64)


def main() -> None:
    """Measure both systems on the large and on the tiny volume."""
    with tempfile.TemporaryDirectory(prefix="sam4em-bench-") as folder:
        large, tiny = Path(folder) / "large.zarr", Path(folder) / "tiny.zarr"
        make_volume(large)
        make_volume(tiny, TINY)
        results = {}
        for name in ("sam4em", "dask_image"):
            for size, path in (("tiny", tiny), ("large", large)):
                results[f"{name}_{size}"] = cost_of([__file__, "--part", name, str(path)])
    net = {name: results[f"{name}_large"].cpu_s - results[f"{name}_tiny"].cpu_s for name in ("sam4em", "dask_image")}
    objects = [results[f"{name}_large"].output["objects"] for name in ("sam4em", "dask_image")]
    report(
        {
            "voxels": SHAPE[0] * SHAPE[1] * SHAPE[2],
            **results,
            "cpu_seconds_without_start_up": net,
            "same_objects": objects[0] == objects[1],
            "ratio_dask_image_over_sam4em": net["dask_image"] / net["sam4em"],
        }
    )


def run_sam4em(path: Path) -> int:
    """Segment with `threshold` on two workers and count the objects."""
    import pyarrow.parquet as pq

    from pipeline.config import RunConfig
    from pipeline.config.read import parse_config
    from pipeline.run import api

    output = path.with_suffix(".labels.zarr")
    config = parse_config(
        {
            "image": {"url": str(path), "voxel_size_zyx_nm": [8, 8, 8]},
            "outputs": [{"url": str(output), "chunk_zyx": [64, 128, 128], "num_mips": 1}],
            "segmenter": {"kind": "threshold", "foreground": "bright"},
            "plan": {"block_zyx": list(BLOCK)},
            "cluster": {"workers": 2},
        },
        RunConfig,
        "benchmark",
    )
    api.run_config(config)
    count = int(pq.read_metadata(f"{output}.run/segments.parquet").num_rows)
    shutil.rmtree(output)
    shutil.rmtree(f"{output}.run")
    return count


def run_dask_image(path: Path) -> int:
    """Label with dask-image on two threads and write the ids."""
    import dask
    import dask.array as da
    import zarr
    from dask_image import ndmeasure

    image = da.from_zarr(str(path)).rechunk(BLOCK)
    labels, count = ndmeasure.label(image > 127)
    output = path.with_suffix(".dask.zarr")
    target = zarr.create_array(store=str(output), shape=labels.shape, chunks=(64, 128, 128), dtype=labels.dtype)
    with dask.config.set(scheduler="threads", num_workers=2):
        _, found = dask.compute(da.store(labels, target, compute=False), count)
    shutil.rmtree(output)
    return int(found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        runner = {"sam4em": run_sam4em, "dask_image": run_dask_image}[sys.argv[2]]
        sys.stdout.write(json.dumps({"objects": runner(Path(sys.argv[3]))}) + "\n")
    else:
        main()
