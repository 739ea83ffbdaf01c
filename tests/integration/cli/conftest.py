"""The command line as a user has it: exit code, stdout and stderr, and small volumes."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.run import launch, shape_run
from pipeline.run.serial import SerialExecutor
from pipeline.storage import ImageSpec, ImageWriter


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Call the command in a folder of its own; a traceback fails the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sam4em", *map(str, arguments)])
        code = 0
        try:
            main.entry_point()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ended(code, captured.out, captured.err)

    return call


@pytest.fixture
def write_volume(tmp_path):
    """Write an array as an OME-Zarr volume; give its path."""

    def write(name, voxels, kind="image", size_nm=(8.0, 8.0, 8.0), chunk=(16, 32, 32)):
        spec = ImageSpec(str(tmp_path / name), voxels.shape, str(voxels.dtype), size_nm, chunk_zyx=chunk, kind=kind)
        writer = ImageWriter(spec)
        writer.create()
        for index in range(len(writer.grid())):
            box = writer.grid().box(index)
            writer.write(box, np.ascontiguousarray(voxels[box.slices]))
        return tmp_path / name

    return write


@pytest.fixture
def in_this_process(monkeypatch):
    """Carry tasks out here: no worker processes have to start."""
    monkeypatch.setattr(launch, "dask_executor", lambda prepared, stages: SerialExecutor(stages))
    monkeypatch.setattr(shape_run, "shape_workers", lambda config, stages: SerialExecutor(stages))


@pytest.fixture
def mount(tmp_path):
    """Mount a small file system at a folder, or change it; skips where that is not permitted."""
    mounted: list[Path] = []

    def call(name, options):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        program = shutil.which("mount")
        if program is None:
            pytest.skip("there is no `mount` here")
        done = subprocess.run(
            [program, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        if folder not in mounted:
            mounted.append(folder)
        return folder

    yield call
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)
