"""Volumes in, volumes out: the only room that knows zarr, cloud-volume, fsspec, tifffile and h5py.

    in    open_volume -> Volume, one file per format; MaskVolume
    out   OmeZarrLabels, PrecomputedSegmentation (write units, checksums); ImageWriter
    run   ScratchArray, ObjectStore, pack_table / unpack_table

`PrecomputedSegmentation` is imported from `pipeline.storage.precomputed_labels`, and the segment properties from
`pipeline.storage.segment_properties`, or made by `label_writer`: cloud-volume takes a second to import.
"""

from pipeline.storage.image_writer import ImageSpec, ImageWriter, mean_downsampled
from pipeline.storage.label_volume import LabelVolumeSpec, LabelVolumeWriter, UnitRecord, checksum
from pipeline.storage.label_writers import LabelFormat, label_writer
from pipeline.storage.mask import MaskVolume
from pipeline.storage.objects import ObjectStore, get_or_none
from pipeline.storage.ome_zarr_labels import OmeZarrLabels
from pipeline.storage.opening import open_volume
from pipeline.storage.options import StorageOptions
from pipeline.storage.scratch import LostChunk, ScratchArray, ScratchSpec
from pipeline.storage.tables import pack_table, unpack_table
from pipeline.storage.volume import LevelInfo, Volume, VolumeInfo
from pipeline.storage.zarr_tree import write_collection

__all__ = [
    "ImageSpec",
    "ImageWriter",
    "LabelFormat",
    "LabelVolumeSpec",
    "LabelVolumeWriter",
    "LevelInfo",
    "LostChunk",
    "MaskVolume",
    "ObjectStore",
    "OmeZarrLabels",
    "ScratchArray",
    "ScratchSpec",
    "StorageOptions",
    "UnitRecord",
    "Volume",
    "VolumeInfo",
    "checksum",
    "get_or_none",
    "label_writer",
    "mean_downsampled",
    "open_volume",
    "pack_table",
    "unpack_table",
    "write_collection",
]
