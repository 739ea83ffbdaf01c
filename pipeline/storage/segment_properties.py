"""Neuroglancer segment properties: an inline `info` beside a precomputed segmentation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import OurError
from pipeline.storage.options import StorageOptions
from pipeline.storage.precomputed_volume import put_file, read_info

PROPERTIES_FOLDER = "segment_properties"
"""Name of the folder, and value of `segment_properties` in the volume's `info`."""
_DEFAULT_OPTIONS = StorageOptions()


def segment_properties_info(
    ids: NDArray[np.uint64], classes: Sequence[str], num_voxels: NDArray[Any], labels: Sequence[str] | None = None
) -> bytes:
    """Write the JSON of inline properties: a label, a tag for the class, a number for the size.

    Args:
        ids: uint64, shape (n,).
        classes: name of each segment's class, length n.
        num_voxels: unsigned, shape (n,).
        labels: shown names; the ids where None.

    Source: neuroglancer, datasource/precomputed/segment_properties.md.

    Raises:
        OurError: lengths differ.
    """
    shown = [str(int(segment)) for segment in ids] if labels is None else list(labels)
    if not len(ids) == len(classes) == len(num_voxels) == len(shown):
        raise OurError(
            f"segment properties: {len(ids)} ids, {len(classes)} classes, {len(num_voxels)} sizes, {len(shown)} labels"
        )
    tags = sorted(set(classes))
    place = {tag: index for index, tag in enumerate(tags)}
    properties = [
        {"id": "label", "type": "label", "values": shown},
        {"id": "class", "type": "tags", "tags": tags, "values": [[place[name]] for name in classes]},
        {
            "id": "num_voxels",
            "type": "number",
            "data_type": "uint32" if max((int(n) for n in num_voxels), default=0) < 2**32 else "float32",
            "description": "voxels",
            "values": [int(count) for count in num_voxels],
        },
    ]
    inline = {"ids": [str(int(segment)) for segment in ids], "properties": properties}
    return json.dumps({"@type": "neuroglancer_segment_properties", "inline": inline}).encode()


def write_segment_properties(url: str, properties: bytes, options: StorageOptions = _DEFAULT_OPTIONS) -> None:
    """Write properties beside the precomputed volume at `url` and name them in its `info`.

    Raises:
        OurError: there is no volume.
    """
    raw = read_info(url, options)
    if raw is None:
        raise OurError(f"segment properties were written before the volume {url} was created")
    put_file(url, options, f"{PROPERTIES_FOLDER}/info", properties)
    info = json.loads(raw) | {"segment_properties": PROPERTIES_FOLDER}
    put_file(url, options, "info", json.dumps(info, indent=2).encode())
