"""The benchmark's modules stand beside its scripts and are no package."""

import sys
from pathlib import Path

BENCH = Path(__file__).parents[3] / "bench"
sys.path[:0] = [str(BENCH / "accuracy"), str(BENCH)]
