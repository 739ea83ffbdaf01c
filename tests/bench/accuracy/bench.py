"""The accuracy benchmark: runs every row of a tier that has no result yet, each in its own process.

    python tests/bench/accuracy/bench.py --tier S --parallel 2 [--only GLOB] [--list]

May be killed at any time: the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from recipes import row_digest
from rows import METHODS, Row, rows_of
from sets import REPOSITORY

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
WORK = REPOSITORY / "train-runs/accuracy"
ROW_LIMIT_S = 25 * 60
"""Least limit of the processor time of a row of tiers S and P; one cut off goes on when the command is given again."""


@dataclass(frozen=True)
class Settings:
    """What the command line says."""

    minutes: float | None
    """Training time per row; None: every row's own."""
    parallel: int
    """Rows at once."""
    results: Path
    """Folder of the results."""
    work: Path
    """Folder of everything else."""
    row_limit_s: int | None = None
    """Seconds of processor time after which a row is cut off; None: as many as its minutes ask for."""

    def minutes_of(self, row: Row) -> float:
        """Training time of a row."""
        return row.minutes if self.minutes is None else self.minutes


def main() -> int:
    """Run what is missing, or list the rows."""
    arguments = _parser().parse_args()
    rows = rows_of(arguments.tier, arguments.only)
    settings = Settings(arguments.minutes, arguments.parallel, arguments.results, arguments.work)
    if not rows:
        sys.stderr.write(f"no row of tier {arguments.tier} matches {arguments.only!r}; see --list\n")
        return 2
    if arguments.list:
        for row in rows:
            state = "done" if is_done(row, settings) else "missing"
            sys.stdout.write(f"{state:8} {row.name:40} {METHODS[row.method].title}\n")
        return 0
    if arguments.tier == "L" and not has_gpu():
        sys.stderr.write(
            "tier L needs a CUDA device, and torch sees none on this machine. Nothing was run; the tables show its "
            "rows as 'not run'\n"
        )
        return 2
    return run_all([row for row in rows if not is_done(row, settings)], settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", choices=("S", "L", "P"), default="S", help="S: two cores; L: a GPU; P: pilots")
    parser.add_argument("--minutes", type=float, help="training time per row; default: 4, of few labels 8 or 16")
    parser.add_argument("--parallel", type=int, default=2, help="rows at once, one thread each")
    parser.add_argument("--only", help="shell pattern of row names")
    parser.add_argument("--list", action="store_true", help="show the rows and whether their results are there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--work", type=Path, default=WORK, help="folder of weights, logs and probabilities")
    return parser


def is_done(row: Row, settings: Settings) -> bool:
    """Whether a result of the same recipe and minutes is there."""
    path = settings.results / f"{row.name}.json"
    if not path.exists():
        return False
    return bool(json.loads(path.read_text())["digest"] == row_digest(row, settings.minutes_of(row)))


def has_gpu() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


def run_all(rows: list[Row], settings: Settings) -> int:
    """Run rows, some at once; a row that fails does not stop the others.

    Returns:
        0, or 1 where a row failed.
    """
    sys.stderr.write(f"{len(rows)} rows to run, {settings.parallel} at once\n")
    settings.work.mkdir(parents=True, exist_ok=True)
    readers = [row for row in rows if METHODS[row.method].weights_of is not None]
    # Rows that read out the weights of others come when those are there.
    waves = [row for row in rows if row not in readers], readers
    codes: list[int] = []
    with ThreadPoolExecutor(settings.parallel) as pool:
        for wave in waves:
            codes += pool.map(lambda row: run_row(row, settings), wave)
    failed = sum(code != 0 for code in codes)
    sys.stderr.write(f"{len(rows) - failed} rows done, {failed} failed\n")
    return int(failed > 0)


def run_row(row: Row, settings: Settings) -> int:
    """Run one row in its own process; its output goes to a log beside its work folder."""
    log = settings.work / f"{row.name}.log"
    places = ["--work", str(settings.work), "--results", str(settings.results)]
    minutes = settings.minutes_of(row)
    command = [sys.executable, str(HERE / "row_process.py"), row.name, "--minutes", str(minutes), *places]
    started = time.monotonic()
    with log.open("a") as stream, subprocess.Popen(command, stdout=stream, stderr=stream, env=environment()) as process:
        limit = settings.row_limit_s or limit_of(minutes)
        if row.tier != "L":
            resource.prlimit(process.pid, resource.RLIMIT_CPU, (limit, limit))
        code = process.wait()
    outcome = "done" if code == 0 else f"failed (exit {code}), see {log}"
    if code == -signal.SIGKILL:
        outcome = f"killed, or cut off after {limit} s of processor time; again goes on where it stopped"
    sys.stderr.write(f"{row.name}: {outcome}, {time.monotonic() - started:.0f} s\n")
    return code


def limit_of(minutes: float) -> int:
    """Give the processor time of a row, s: twice what it trains for, and at least the usual limit."""
    return max(ROW_LIMIT_S, round(2 * 60 * minutes))


def environment() -> dict[str, str]:
    """Give the environment of a row: one thread, and the neighboring benchmark's modules on the path."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    paths = [str(REPOSITORY), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


if __name__ == "__main__":
    raise SystemExit(main())
