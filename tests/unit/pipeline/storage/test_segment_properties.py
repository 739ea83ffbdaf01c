"""Segment properties."""

import json

import numpy as np
import pytest

from pipeline.errors import OurError
from pipeline.storage import LabelVolumeSpec, label_writer
from pipeline.storage.segment_properties import segment_properties_info, write_segment_properties

IDS = np.array([2**64 - 1, 5, 7], np.uint64)


def test_inline_properties():
    info = json.loads(segment_properties_info(IDS, ["mito", "glia", "mito"], np.array([9, 8, 7], np.uint64)))
    assert info["@type"] == "neuroglancer_segment_properties"
    assert info["inline"]["ids"] == ["18446744073709551615", "5", "7"]
    label, tags, number = info["inline"]["properties"]
    assert (label["type"], label["values"]) == ("label", ["18446744073709551615", "5", "7"])
    assert (tags["tags"], tags["values"]) == (["glia", "mito"], [[1], [0], [1]])
    assert (number["data_type"], number["values"]) == ("uint32", [9, 8, 7])


def test_sizes_beyond_32_bits_stay_numbers():
    info = json.loads(segment_properties_info(IDS[:1], ["m"], np.array([2**40], np.uint64)))
    assert info["inline"]["properties"][2]["data_type"] == "float32"


def test_they_are_named_in_info_and_removed_with_the_volume(tmp_path):
    writer = label_writer("precomputed", LabelVolumeSpec(str(tmp_path / "s"), (5, 7, 11), (9.0,) * 3, (2, 3, 5)))
    properties = segment_properties_info(IDS, ["m"] * 3, np.ones(3, np.uint64))
    with pytest.raises(OurError, match="before"):
        write_segment_properties(writer.spec.url, properties)
    writer.create()
    write_segment_properties(writer.spec.url, properties)
    writer.mark(complete=True)
    assert json.loads((tmp_path / "s" / "info").read_text())["segment_properties"] == "segment_properties"
    assert (tmp_path / "s" / "segment_properties" / "info").read_bytes() == properties
    writer.delete()
    assert not (tmp_path / "s").exists()


def test_lengths_must_agree():
    with pytest.raises(OurError, match="3 ids, 2 classes"):
        segment_properties_info(IDS, ["a", "b"], np.ones(3, np.uint64))
