"""One job, threshold + components + stitch + relabel + write, by sam4em and by what people use today.

    python tests/bench/peers.py [PEER ...]      default: all

The volume is that of `labelling.py`: 256 x 1024 x 1024 voxels, 32 blocks of 64 x 256 x 512, two cores. A peer with
packages of its own has an environment of its own, made by this script below `SAM4EM_PEERS` (default
~/.cache/sam4em-peers); one that cannot be installed or fails is listed with the reason. `peers/NAME.py` is run by that
environment's Python.

For each: CPU seconds of the process tree without start-up (the same job on a tiny volume is taken off), wall seconds,
the largest resident memory of the tree, sampled ten times per second, and the number of objects, which must be equal
but for cellpose, whose rule for merging is another one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from measure import CHUNK, SHAPE, make_volume, report

# Two blocks: cellpose cannot merge one.
TINY = (64, 512, 512)
HERE = Path(__file__).parent
SAMPLE_S = 0.1


@dataclass(frozen=True)
class Peer:
    """One way of doing the job."""

    packages: tuple[str, ...] = ()
    """What its environment has; none: this environment."""
    remove: tuple[str, ...] = ()
    """What is taken out again. numcodecs does not import where zfpy 1.0.1 is."""
    note: str = ""
    """What must be known to read its figures."""


PEERS = {
    "sam4em": Peer(),
    "in_memory": Peer(note="one process: read, cc3d, write; the floor"),
    "dask_image": Peer(("dask-image==2026.5.0", "dask[array]", "zarr>=3"), note="two threads of one process"),
    "cellpose": Peer(
        ("cellpose[distributed]==4.2.1.1", "zarr>=3"),
        note="a threshold in place of its network; leaves thin contacts apart, so its number of objects is larger",
    ),
    "daisy": Peer(
        ("daisy==1.2.3", "zarr>=3", "connected-components-3d", "fastremap", "scipy"),
        note="a scheduler of blocks: labelling and stitching on it are peers/daisy.py's own",
    ),
    "igneous": Peer(
        ("igneous-pipeline==4.37.0", "zarr>=3"),
        ("zfpy",),
        note="GPL-3: never a dependency; reads and writes precomputed, its input is made before the clock starts",
    ),
}


@dataclass
class Watched:
    """A process tree that was watched to its end."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    output: dict[str, Any] = field(default_factory=dict)


def watch(command: list[str], environment: dict[str, str]) -> Watched:
    """Run a command and watch it and all its descendants."""
    before = os.times()
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    peak = [0]
    sampler = threading.Thread(target=_sample, args=(process, peak))
    sampler.start()
    text, _ = process.communicate()
    sampler.join()
    wall, after = time.perf_counter() - start, os.times()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Watched(wall, cpu, peak[0], json.loads(text.strip().splitlines()[-1]))


def _sample(process: subprocess.Popen[str], peak: list[int]) -> None:
    root = psutil.Process(process.pid)
    while process.poll() is None:
        total = 0
        try:
            for one in (root, *root.children(recursive=True)):
                total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        peak[0] = max(peak[0], total)
        time.sleep(SAMPLE_S)


def python_of(name: str, peer: Peer) -> str:
    """Give the Python of a peer's environment; makes the environment where there is none."""
    if not peer.packages:
        return sys.executable
    folder = Path(os.environ.get("SAM4EM_PEERS", Path.home() / ".cache" / "sam4em-peers")) / "envs" / name
    python = folder / "bin" / "python"
    mark = folder / "installed.json"
    if not mark.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *peer.packages], check=True)
        if peer.remove:
            subprocess.run([str(python), "-m", "pip", "uninstall", "-q", "-y", *peer.remove], check=True)
        mark.write_text(json.dumps(peer.packages))
    return str(python)


def measure(name: str, large: Path, tiny: Path) -> dict[str, Any]:
    """Measure one peer on both volumes."""
    peer = PEERS[name]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if peer.packages:
        environment.pop("PYTHONPATH", None)
    command = [python_of(name, peer), str(HERE / "peers" / f"{name}.py")]
    found = {}
    for size, path in (("tiny", tiny), ("large", large)):
        with tempfile.TemporaryDirectory(prefix=f"sam4em-bench-{name}-", dir=path.parent) as folder:
            subprocess.run([*command, "prepare", str(path), folder], check=True, env=environment)
            found[size] = watch([*command, "run", str(path), folder], environment)
    return {
        "objects": found["large"].output["objects"],
        "cpu_s": found["large"].cpu_s - found["tiny"].cpu_s,
        "wall_s": found["large"].wall_s - found["tiny"].wall_s,
        "start_up_cpu_s": found["tiny"].cpu_s,
        "peak_bytes_of_the_tree": found["large"].peak_bytes,
        "peak_bytes_of_a_worker": found["large"].output.get("peak_bytes_of_a_worker"),
        "versions": found["large"].output.get("versions", {}),
        "packages": list(peer.packages),
        "note": peer.note,
    }


def main(names: list[str]) -> None:
    """Measure the peers that are named."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="sam4em-bench-") as folder:
        large, tiny = Path(folder) / "large.zarr", Path(folder) / "tiny.zarr"
        make_volume(large)
        make_volume(tiny, TINY)
        for name in names:
            try:
                rows[name] = measure(name, large, tiny)
            except (subprocess.CalledProcessError, RuntimeError) as error:
                rows[name] = {"failed": str(error), "packages": list(PEERS[name].packages)}
    ours = rows.get("sam4em", {})
    ratios = {name: row["cpu_s"] / ours["cpu_s"] for name, row in rows.items() if "cpu_s" in row and "cpu_s" in ours}
    counts = {row["objects"] for name, row in rows.items() if "objects" in row and name != "cellpose"}
    report(
        {
            "shape": SHAPE,
            "chunk": CHUNK,
            "peers": rows,
            "cpu_over_sam4em": ratios,
            "same_objects": len(counts) == 1,
        }
    )


if __name__ == "__main__":
    main(sys.argv[1:] or list(PEERS))
