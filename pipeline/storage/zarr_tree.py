"""Writing and removing zarr groups: the metadata file itself, and only the names that belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.storage.faults import store_faults
from pipeline.storage.locations import join, local_path
from pipeline.storage.objects import ObjectStore
from pipeline.storage.options import StorageOptions


def write_group(url: str, attributes: Mapping[str, Any], options: StorageOptions) -> None:
    """Write the `zarr.json` of a zarr v3 group in one piece.

    Raises:
        WorldError: the store failed.
    """
    document = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    ObjectStore(url, options).put("zarr.json", json.dumps(document, indent=2).encode())


def delete_tree(url: str, folders: Sequence[str], files: Sequence[str], options: StorageOptions) -> None:
    """Remove named folders and files below a URL, files last, then the folder itself if it is empty.

    Raises:
        WorldError: the store failed.
    """
    store = ObjectStore(url, options)
    for folder in folders:
        store.delete_prefix(folder)
    for file in files:
        store.delete(file)
    path = local_path(url)
    if path is not None and path.is_dir():
        with store_faults(f"removing {url}", "write"):
            if not any(path.iterdir()):
                path.rmdir()


def write_collection(url: str, class_names: Sequence[str], options: StorageOptions) -> None:
    """Write the group that holds one label volume per class.

    OME-Zarr calls such a group `labels`: its metadata lists the names of the images in it.
    """
    write_group(join(url), {"ome": {"version": "0.5", "labels": list(class_names)}}, options)
