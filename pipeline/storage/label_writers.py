"""The one door to a label volume that is to be written."""

from __future__ import annotations

import importlib
from typing import Literal

from pipeline.storage.label_volume import LabelVolumeSpec, LabelVolumeWriter
from pipeline.storage.ome_zarr_labels import OmeZarrLabels
from pipeline.storage.options import StorageOptions

LabelFormat = Literal["ome-zarr", "precomputed"]
"""Formats of label volumes."""
_DEFAULT_OPTIONS = StorageOptions()


def label_writer(
    label_format: LabelFormat, spec: LabelVolumeSpec, options: StorageOptions = _DEFAULT_OPTIONS
) -> LabelVolumeWriter:
    """Make the writer of a format; no request is made.

    Raises:
        PlanError: chunk and shard cannot be had in this format.
        ConfigError: the address can only be read.
    """
    if label_format == "ome-zarr":
        return OmeZarrLabels(spec, options)
    # cloud-volume takes a second to import: only where it is needed.
    module = importlib.import_module("pipeline.storage.precomputed_labels")
    writer: LabelVolumeWriter = module.PrecomputedSegmentation(spec, options)
    return writer
