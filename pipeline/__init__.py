"""sam4em's pipeline: whole electron-microscopy volumes, block by block, on a Dask cluster.

    segment, evaluate       arrays in, arrays out                      pipeline.run.arrays
    open_volume             read any format                            pipeline.storage
    Segmenter, describe_segmenter, load_segmenter                      pipeline.segmenter

The names are fetched when they are asked for: importing the package imports nothing else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pipeline.run.arrays import Segmentation, evaluate, segment
    from pipeline.segmenter import Segmenter, describe_segmenter, load_segmenter
    from pipeline.storage import open_volume

__version__ = "0.1.0"

__all__ = [
    "Segmentation",
    "Segmenter",
    "describe_segmenter",
    "evaluate",
    "load_segmenter",
    "open_volume",
    "segment",
]

_HOMES: Final = {
    "Segmentation": "pipeline.run.arrays",
    "Segmenter": "pipeline.segmenter",
    "describe_segmenter": "pipeline.segmenter",
    "evaluate": "pipeline.run.arrays",
    "load_segmenter": "pipeline.segmenter",
    "open_volume": "pipeline.storage",
    "segment": "pipeline.run.arrays",
}


def __getattr__(name: str) -> Any:
    """Fetch a name of the Python interface."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
