"""The benchmark's modules stand beside its scripts and are no package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "bench" / "accuracy"))
